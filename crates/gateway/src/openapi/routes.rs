//! The table of routes: who may call them, what they take and what they answer.

use crate::{account, admin, health, messages, models, quote};

use super::{
    forwarded::{
        batch_body, billed_answer, binary, completion_body, edit_form, embedding_body, file_form,
        image_body, moderation_body, rerank_body, speech_body, transcription_form,
    },
    responses,
    route::{Answer, Route, anybody, client, operator, paid},
    schemas::{
        chat_answer, chat_body, chat_event, document, list, message_answer, message_body,
        message_event, response_answer, response_body, response_event, schema, text,
    },
};

const JSON: &str = "application/json";

const LIMIT: (&str, &str) = ("limit", "Rows of the page, 1 to 1000.");
const CURSOR: (&str, &str) = ("cursor", "next_cursor of the page before.");
const PAGE: &[(&str, &str)] = &[LIMIT, CURSOR];
const OWN_LIST: &[(&str, &str)] = &[
    (
        "limit",
        "Rows of the page, 1 to 10000; no page has more than 1000.",
    ),
    ("after", "The last id of the page before."),
    CURSOR,
    ("order", "desc (the newest first) or asc."),
    ("purpose", "Files of this purpose alone."),
];
const CHARGE_FILTERS: &[(&str, &str)] = &[
    LIMIT,
    CURSOR,
    ("account_id", "Of this account."),
    ("key_id", "Of this key."),
    ("model", "Of this model, as configured."),
    ("from", "Admitted at or after this time or day."),
    ("to", "Admitted before this time or day."),
    ("end", "Ended so."),
];
const USAGE_FILTERS: &[(&str, &str)] = &[
    (
        "group_by",
        "Dimensions with commas between them: day, month, model, provider, key, account, end. Absent: one row.",
    ),
    LIMIT,
    CURSOR,
    ("account_id", "Of this account."),
    ("key_id", "Of this key."),
    ("model", "Of this model, as configured."),
    ("from", "Admitted at or after this time or day."),
    ("to", "Admitted before this time or day."),
    ("end", "Ended so."),
];
const CREDIT_ANSWERS: &[Answer] = &[
    (
        "201",
        "The entry.",
        &[(JSON, schema::<admin::credits::EntryView>)],
    ),
    (
        "200",
        "The entry of an earlier call with this Idempotency-Key; the header idempotent-replayed is true.",
        &[(JSON, schema::<admin::credits::EntryView>)],
    ),
];

/// Every operation of the program.
pub(crate) const ROUTES: &[Route] = &[
    client(
        "post",
        "/v1/chat/completions",
        "createChatCompletion",
        "Answer a chat, plain or streamed.",
    )
    .takes(chat_body)
    .gives(&[(
        "200",
        "The answer. Its usage carries cost. A stream whose credits run out ends with an error event of code insufficient_quota.",
        &[(JSON, chat_answer), ("text/event-stream", chat_event)],
    )])
    .refuses(&["400", "402", "404", "409", "413", "422", "429", "502", "504"])
    .repeatable(),
    paid(
        "/v1/completions",
        "createCompletion",
        "Continue a text, plain or streamed, where the model does that.",
    )
    .takes(completion_body)
    .gives(&[(
        "200",
        "The text. Its usage carries cost. A stream whose credits run out ends with an error event of code insufficient_quota.",
        &[(JSON, chat_answer), ("text/event-stream", chat_event)],
    )]),
    paid(
        "/v1/embeddings",
        "createEmbedding",
        "Turn texts or tokens into vectors.",
    )
    .takes(embedding_body)
    .gives(&[("200", "The vectors. Its usage carries cost.", &[(JSON, billed_answer)])]),
    paid(
        "/v1/moderations",
        "createModeration",
        "Say what is objectionable in texts.",
    )
    .takes(moderation_body)
    .gives(&[("200", "The judgements. Its usage carries cost.", &[(JSON, billed_answer)])]),
    paid(
        "/v1/rerank",
        "createRerank",
        "Order documents by how well they answer a question.",
    )
    .takes(rerank_body)
    .gives(&[("200", "The order. Its usage carries cost.", &[(JSON, billed_answer)])]),
    paid(
        "/v1/images/generations",
        "createImage",
        "Make images of a text, plain or streamed.",
    )
    .takes(image_body)
    .gives(&[(
        "200",
        "The images. Its usage carries cost.",
        &[(JSON, billed_answer), ("text/event-stream", chat_event)],
    )]),
    paid(
        "/v1/images/edits",
        "createImageEdit",
        "Make images of images and a text, plain or streamed.",
    )
    .takes_form(edit_form)
    .gives(&[(
        "200",
        "The images. Its usage carries cost.",
        &[(JSON, billed_answer), ("text/event-stream", chat_event)],
    )]),
    paid("/v1/audio/speech", "createSpeech", "Read a text aloud.")
        .takes(speech_body)
        .gives(&[(
            "200",
            "The audio, or events with it. The header x-tollway-cost says what audio cost that is sold by characters.",
            &[
                ("audio/*", binary),
                // Where the provider does not say what audio it is.
                ("application/octet-stream", binary),
                ("text/event-stream", chat_event),
            ],
        )]),
    paid(
        "/v1/audio/transcriptions",
        "createTranscription",
        "Write down what is said, plain or streamed.",
    )
    .takes_form(transcription_form)
    .gives(&[(
        "200",
        "The transcript. Its usage carries cost, or else the header x-tollway-cost.",
        &[
            (JSON, billed_answer),
            ("text/plain", text),
            ("text/event-stream", chat_event),
        ],
    )]),
    paid(
        "/v1/audio/translations",
        "createTranslation",
        "Write down in English what is said.",
    )
    .takes_form(transcription_form)
    .gives(&[(
        "200",
        "The transcript. Its usage carries cost, or else the header x-tollway-cost.",
        &[(JSON, billed_answer), ("text/plain", text)],
    )]),
    paid(
        "/v1/responses",
        "createResponse",
        "Answer a request of OpenAI's Responses, plain or streamed, over any model.",
    )
    .takes(response_body)
    .gives(&[(
        "200",
        "The response. Its usage carries cost. A stream whose credits run out ends with response.failed and an error event of code insufficient_quota.",
        &[(JSON, response_answer), ("text/event-stream", response_event)],
    )]),
    responses::RETRIEVE,
    responses::DELETE,
    responses::INPUT_ITEMS,
    responses::CANCEL,
    responses::COUNT,
    client("post", "/v1/files", "createFile", "Send a file to a provider that keeps files.")
        .takes_form(file_form)
        .gives(&[("200", "The file, which is this key's own.", &[(JSON, document)])])
        .refuses(&["400", "402", "404", "413", "429", "502", "504"]),
    client("get", "/v1/files", "listFiles", "This key's files, the newest first.")
        .query(OWN_LIST)
        .gives(&[("200", "A page of them.", &[(JSON, document)])])
        .refuses(&["400", "402", "404", "429"]),
    client("get", "/v1/files/{id}", "getFile", "One of this key's files.")
        .gives(&[("200", "The file.", &[(JSON, document)])])
        .refuses(&["400", "402", "404", "429", "502", "504"]),
    client("delete", "/v1/files/{id}", "deleteFile", "Delete a file of this key's.")
        .gives(&[("200", "It is gone.", &[(JSON, document)])])
        .refuses(&["400", "404", "429", "502", "504"]),
    client(
        "get",
        "/v1/files/{id}/content",
        "getFileContent",
        "What is in a file of this key's. Results of a batch are charged the first time.",
    )
    .gives(&[("200", "The bytes.", &[("application/octet-stream", binary)])])
    .refuses(&["400", "402", "404", "409", "422", "429", "502", "504"]),
    client("post", "/v1/batches", "createBatch", "Have the requests in a file worked off within a day.")
        .takes(batch_body)
        .gives(&[("200", "The batch, which is this key's own.", &[(JSON, document)])])
        .refuses(&["400", "402", "404", "409", "413", "422", "429", "502", "504"])
        .repeatable(),
    client("get", "/v1/batches", "listBatches", "This key's batches, the newest first.")
        .query(OWN_LIST)
        .gives(&[("200", "A page of them.", &[(JSON, document)])])
        .refuses(&["400", "402", "404", "429"]),
    client("get", "/v1/batches/{id}", "getBatch", "One of this key's batches.")
        .gives(&[("200", "The batch.", &[(JSON, document)])])
        .refuses(&["400", "402", "404", "429", "502", "504"]),
    client("post", "/v1/batches/{id}/cancel", "cancelBatch", "Stop a batch of this key's.")
        .gives(&[("200", "The batch.", &[(JSON, document)])])
        .refuses(&["400", "404", "409", "429", "502", "504"]),
    client(
        "post",
        "/v1/messages",
        "createMessage",
        "Answer a message of Anthropic's, plain or streamed, over any model.",
    )
    .takes(message_body)
    .gives(&[(
        "200",
        "The message. Its usage carries cost. A stream whose credits run out ends with an error event of type billing_error.",
        &[(JSON, message_answer), ("text/event-stream", message_event)],
    )])
    .refuses(&["400", "402", "404", "409", "413", "422", "429", "502", "504", "529"])
    .repeatable(),
    client(
        "post",
        "/v1/messages/count_tokens",
        "countMessageTokens",
        "Count the tokens of a message's request; nothing is spent.",
    )
    .takes(message_body)
    .gives(&[("200", "The count.", &[(JSON, schema::<messages::TokenCount>)])])
    .refuses(&["400", "404", "413", "529"]),
    client(
        "post",
        "/v1/quote",
        "createQuote",
        "Say what a chat would cost; nothing is spent.",
    )
    .takes(chat_body)
    .gives(&[("200", "The quote.", &[(JSON, schema::<quote::Quote>)])])
    .refuses(&["400", "404", "413"]),
    client(
        "get",
        "/v1/models",
        "listModels",
        "Every model that the key may use.",
    )
    .gives(&[(
        "200",
        "The models.",
        &[(JSON, list::<models::ModelView>)],
    )]),
    client(
        "get",
        "/v1/models/{id}",
        "getModel",
        "One model; the id may have slashes.",
    )
    .gives(&[("200", "The model.", &[(JSON, schema::<models::ModelView>)])])
    .refuses(&["404"]),
    client(
        "get",
        "/v1/key",
        "getOwnKey",
        "This key: limit, remaining, usage.",
    )
    .gives(&[("200", "The key.", &[(JSON, schema::<account::OwnKey>)])]),
    client(
        "get",
        "/v1/credits",
        "getOwnCredits",
        "The account: total, used, held, remaining.",
    )
    .gives(&[(
        "200",
        "The credits.",
        &[(JSON, schema::<account::CreditsView>)],
    )]),
    client(
        "get",
        "/v1/generation",
        "getGeneration",
        "One request of this key that has ended.",
    )
    .query(&[("id", "The x-request-id of its answer.")])
    .gives(&[(
        "200",
        "The request.",
        &[(JSON, schema::<account::Generation>)],
    )])
    .refuses(&["400", "404"]),
    operator(
        "post",
        "/admin/v1/accounts",
        "createAccount",
        "Make an account.",
    )
    .takes(schema::<admin::accounts::CreateAccount>)
    .gives(&[(
        "201",
        "The account.",
        &[(JSON, schema::<admin::accounts::AccountView>)],
    )])
    .refuses(&["413"]),
    operator(
        "get",
        "/admin/v1/accounts",
        "listAccounts",
        "All accounts, newest first.",
    )
    .query(PAGE)
    .gives(&[(
        "200",
        "A page of accounts.",
        &[(JSON, list::<admin::accounts::AccountView>)],
    )]),
    operator(
        "get",
        "/admin/v1/accounts/{id}",
        "getAccount",
        "One account.",
    )
    .gives(&[(
        "200",
        "The account.",
        &[(JSON, schema::<admin::accounts::AccountView>)],
    )])
    .refuses(&["404"]),
    operator(
        "patch",
        "/admin/v1/accounts/{id}",
        "updateAccount",
        "Change an account.",
    )
    .takes(schema::<admin::accounts::ChangeAccount>)
    .gives(&[(
        "200",
        "The account.",
        &[(JSON, schema::<admin::accounts::AccountView>)],
    )])
    .refuses(&["404", "409", "413"]),
    operator(
        "post",
        "/admin/v1/accounts/{id}/credits",
        "addAccountCredits",
        "Add credits to an account.",
    )
    .takes(schema::<admin::credits::AddCredits>)
    .gives(CREDIT_ANSWERS)
    .refuses(&["404", "409", "413"])
    .repeatable(),
    operator(
        "get",
        "/admin/v1/accounts/{id}/entries",
        "listEntries",
        "The ledger of an account, newest first: credits and charges.",
    )
    .query(PAGE)
    .gives(&[(
        "200",
        "A page of the ledger.",
        &[(JSON, list::<admin::credits::EntryView>)],
    )])
    .refuses(&["404"]),
    operator("post", "/admin/v1/keys", "createKey", "Make a key.")
        .takes(schema::<admin::keys::CreateKey>)
        .gives(&[
            (
                "201",
                "The key with its secret, which is shown this once.",
                &[(JSON, schema::<admin::keys::KeyWithSecret>)],
            ),
            (
                "200",
                "The key of an earlier call with this Idempotency-Key, without its secret; the header idempotent-replayed is true. Nothing was added.",
                &[(JSON, schema::<admin::keys::KeyMadeBefore>)],
            ),
        ])
        .refuses(&["404", "409", "413"])
        .repeatable(),
    operator(
        "get",
        "/admin/v1/keys",
        "listKeys",
        "Keys, newest first, without their secrets.",
    )
    .query(&[
        LIMIT,
        CURSOR,
        ("account_id", "Of this account."),
        ("with_revoked", "true: revoked ones too."),
    ])
    .gives(&[(
        "200",
        "A page of keys.",
        &[(JSON, list::<admin::keys::KeyView>)],
    )]),
    operator("get", "/admin/v1/keys/{id}", "getKey", "One key.")
        .gives(&[(
            "200",
            "The key.",
            &[(JSON, schema::<admin::keys::KeyView>)],
        )])
        .refuses(&["404"]),
    operator("patch", "/admin/v1/keys/{id}", "updateKey", "Change a key.")
        .takes(schema::<admin::keys::ChangeKey>)
        .gives(&[(
            "200",
            "The key.",
            &[(JSON, schema::<admin::keys::KeyView>)],
        )])
        .refuses(&["404", "413"]),
    operator(
        "delete",
        "/admin/v1/keys/{id}",
        "revokeKey",
        "Revoke a key for good; every replica refuses it within a second.",
    )
    .gives(&[(
        "200",
        "The key, revoked.",
        &[(JSON, schema::<admin::keys::KeyView>)],
    )])
    .refuses(&["404"]),
    operator(
        "post",
        "/admin/v1/keys/{id}/rotate",
        "rotateKey",
        "Give a key a new secret; the old one is refused within a second.",
    )
    .gives(&[(
        "200",
        "The key with its new secret, which is shown this once.",
        &[(JSON, schema::<admin::keys::KeyWithSecret>)],
    )])
    .refuses(&["404"]),
    operator(
        "post",
        "/admin/v1/keys/{id}/credits",
        "addKeyCredits",
        "Add credits to the account of a key.",
    )
    .takes(schema::<admin::credits::AddCredits>)
    .gives(CREDIT_ANSWERS)
    .refuses(&["404", "409", "413"])
    .repeatable(),
    operator(
        "get",
        "/admin/v1/charges",
        "listCharges",
        "What requests cost, each one, newest first.",
    )
    .query(CHARGE_FILTERS)
    .gives(&[(
        "200",
        "A page of charges.",
        &[(JSON, list::<admin::charges::ChargeView>)],
    )]),
    operator(
        "get",
        "/admin/v1/usage",
        "sumUsage",
        "What requests consumed and cost, in sums.",
    )
    .query(USAGE_FILTERS)
    .gives(&[(
        "200",
        "The sums.",
        &[(JSON, list::<admin::charges::UsageSumView>)],
    )]),
    operator(
        "get",
        "/admin/v1/drift",
        "reportDrift",
        "Our counts beside the providers' reports, by day and model, newest day first.",
    )
    .query(CHARGE_FILTERS)
    .gives(&[(
        "200",
        "A page of days and models.",
        &[(JSON, list::<admin::drift::DriftView>)],
    )]),
    operator("get", "/admin/v1/audit", "audit", "Prove the books.").gives(&[(
        "200",
        "What the proof found, balanced or not.",
        &[(JSON, schema::<admin::audit::AuditView>)],
    )]),
    operator(
        "get",
        "/admin/v1/settlements",
        "listDeadSettlements",
        "Settlements that could not be booked and wait for a decision, newest request first.",
    )
    .query(&[LIMIT, CURSOR, ("all", "true: those that were decided too.")])
    .gives(&[(
        "200",
        "A page of settlements.",
        &[(JSON, list::<admin::settlements::DeadSettlementView>)],
    )]),
    operator(
        "post",
        "/admin/v1/settlements/{id}/resolve",
        "resolveSettlement",
        "Decide about a settlement that could not be booked, once.",
    )
    .takes(schema::<admin::settlements::ResolveSettlement>)
    .gives(&[(
        "200",
        "The settlement with what was decided.",
        &[(JSON, schema::<admin::settlements::DeadSettlementView>)],
    )])
    .refuses(&["409", "413"]),
    operator(
        "get",
        "/admin/v1/models",
        "listServedModels",
        "The models that are served, with their prices.",
    )
    .query(PAGE)
    .gives(&[(
        "200",
        "The models.",
        &[(JSON, list::<admin::served::ServedModel>)],
    )]),
    operator(
        "get",
        "/admin/v1/factors",
        "listTokenFactors",
        "How the tokens of each model are counted, and what its answers have taught.",
    )
    .query(&[
        LIMIT,
        CURSOR,
        ("provider", "Of this provider."),
        ("model", "Of this model, as configured."),
    ])
    .gives(&[(
        "200",
        "The models.",
        &[(JSON, list::<admin::factors::FactorsView>)],
    )]),
    operator(
        "get",
        "/admin/v1/providers",
        "listProviders",
        "The providers that are configured, and what those wait for that are not served.",
    )
    .query(PAGE)
    .gives(&[(
        "200",
        "The providers.",
        &[(JSON, list::<admin::served::ServedProvider>)],
    )]),
    anybody("/healthz", "isAlive", "Whether the program lives.").gives(&[(
        "200",
        "It does.",
        &[(JSON, schema::<health::Alive>)],
    )]),
    anybody("/readyz", "isReady", "Whether the program can serve.").gives(&[
        ("200", "It can.", &[(JSON, schema::<health::Ready>)]),
        ("503", "It cannot.", &[(JSON, schema::<health::Ready>)]),
    ]),
    anybody(
        "/metrics",
        "getMetrics",
        "Figures for Prometheus; elsewhere where metrics_listen is set.",
    )
    .gives(&[("200", "The figures.", &[("text/plain", text)])]),
    anybody("/openapi.json", "getOpenApi", "This document.").gives(&[(
        "200",
        "The document.",
        &[(JSON, document)],
    )]),
];
