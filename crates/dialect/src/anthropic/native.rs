//! A Messages request to a provider that speaks Messages: its bytes travel, with what the gateway must change spliced in.

use std::ops::Range;

use bytes::Bytes;

use super::encode::{Host, VERTEX_VERSION};
use super::thinking::within_limit;
use crate::body::leave_out;
use crate::error::RequestError;
use crate::json::{self, Splice};
use crate::messages::MessagesRequest;
use crate::openai::{Edit, WireRequest};
use crate::quirks::Quirks;

/// The header that switches features on which are not for everybody yet.
const BETA: &str = "anthropic-beta";

/// The features that a client may switch on, by their names without their dates: those that change
/// neither the price of a token nor who runs a tool. The others are left out.
const BETAS: [&str; 19] = [
    "advanced-tool-use",
    "claude-code",
    "computer-use",
    "context-management",
    "dev-full-thinking",
    "effort",
    "extended-cache-ttl",
    "fine-grained-tool-streaming",
    "interleaved-thinking",
    "memory-tool",
    "model-context-window-exceeded",
    "output-128k",
    "pdfs",
    "prompt-caching",
    "prompt-caching-scope",
    "search-result",
    "structured-outputs",
    "token-efficient-tools",
    "tool-examples",
];

/// The same on Vertex AI, which refuses a request with any other. Source: Anthropic's guides of the
/// features, and the refusals that users of Vertex AI report.
const VERTEX_BETAS: [&str; 5] = [
    "computer-use",
    "context-management",
    "interleaved-thinking",
    "tool-examples",
    "tool-search-tool",
];

/// A feature under Anthropic's own name for it, and what it is called on Vertex AI. Source: Anthropic's
/// guide "Tool search tool".
const VERTEX_RENAMED: (&str, &str) = (
    "advanced-tool-use-2025-11-20",
    "tool-search-tool-2025-10-19",
);

/// Tools of Anthropic's that the client runs itself, or that cost nothing but tokens.
const TOOLS: [&str; 6] = [
    "custom",
    "bash_",
    "computer_",
    "memory_",
    "text_editor_",
    "tool_search_tool_",
];

/// Members that change the price, or let the provider work in ways that nobody could hold credits
/// for, with the values that do not.
const PRICED: [(&str, &[&str]); 5] = [
    ("container", &[]),
    ("inference_geo", &[r#""global""#]),
    ("mcp_servers", &["[]"]),
    ("service_tier", &[r#""auto""#, r#""standard_only""#]),
    ("speed", &[r#""standard""#]),
];

/// Writes a request for a `host` that speaks the client's own dialect. `betas` are the values of the
/// client's header of that name.
///
/// # Errors
/// A member or a tool with a price of its own, or one that the provider's file refuses.
pub(crate) fn encode(
    request: &MessagesRequest<'_>,
    edit: &Edit<'_>,
    quirks: &Quirks,
    betas: &[&str],
    host: Host,
) -> Result<WireRequest, RequestError> {
    refuse_priced(request)?;
    let text = request.text();
    let limit = output_limit(request, edit);
    let mut splice = Splice::default();
    let mut end = text.len() - text.trim_ascii_start().len() + 1;
    let mut kept = false;
    let members = request.members();
    for (index, member) in members.iter().enumerate() {
        let name = member.name.as_ref();
        let sent = json::slice(text, &member.value);
        let unsupported = quirks.unsupported.iter().any(|other| other == name) && sent != "null";
        if unsupported && !quirks.drop_unsupported {
            let message =
                format!("`{name}` is not supported by the provider of this model: leave it out.");
            return Err(RequestError::param(name.to_owned(), message));
        }
        let set = quirks.set.get(name).map(ToString::to_string);
        let thinking = (name == "thinking").then(|| within_limit(sent, limit));
        let dropped = unsupported
            || host == Host::Vertex && is_not_said_on_vertex(name)
            || quirks.drop.iter().any(|other| other == name)
            || thinking.as_ref().is_some_and(Option::is_none);
        end = member.value.end;
        if dropped && set.is_none() {
            leave_out(members, index, kept, &mut splice);
            continue;
        }
        kept = true;
        let new = match name {
            _ if set.is_some() => set,
            "model" => Some(json::quote(edit.upstream_model)),
            "max_tokens" => Some(limit.to_string()),
            "thinking" => thinking.flatten(),
            _ => None,
        };
        if let Some(new) = new.filter(|new| new != sent) {
            splice.replace(member.value.clone(), new);
        } else if host == Host::Vertex {
            leave_out_scopes(text, &member.value, &mut splice);
        }
    }
    let version = (host == Host::Vertex).then_some(VERTEX_VERSION);
    let version = version.filter(|(name, _)| !quirks.set.contains_key(*name));
    if let Some((name, value)) = version {
        let comma = if kept { "," } else { "" };
        splice.insert(end, format!("{comma}{}:{value}", json::quote(name)));
    }
    for (name, value) in &quirks.set {
        if !members.iter().any(|member| member.name == name.as_str()) {
            splice.insert(end, format!(",{}:{value}", json::quote(name)));
        }
    }
    Ok(WireRequest {
        path: quirks.path_for(host.path(request.stream()), edit.upstream_model),
        headers: headers(quirks, betas, host),
        body: Bytes::from(splice.apply(text)),
    })
}

/// The lowest of what is asked for, affordable and possible.
fn output_limit(request: &MessagesRequest<'_>, edit: &Edit<'_>) -> u64 {
    let limits = [
        request.output_limit(),
        edit.output_limit,
        Some(edit.output_tokens_max),
    ];
    limits.into_iter().flatten().min().unwrap_or(1).max(1)
}

fn refuse_priced(request: &MessagesRequest<'_>) -> Result<(), RequestError> {
    for (name, fine) in PRICED {
        if let Some(sent) = request.get(name)
            && !fine.contains(&sent)
        {
            let message = format!(
                "`{name}` with this value has a price of its own and is not offered here: leave it out."
            );
            return Err(RequestError::param(name, message));
        }
    }
    let list = request.get("tools").unwrap_or("[]");
    for (place, at) in json::elements(list, 0).enumerate() {
        let tool = json::slice(list, &at);
        let kind = json::find(tool, &["type".to_owned()]);
        let kind = kind.map_or(r#""custom""#, |at| json::slice(tool, &at));
        let kind = json::unescape(json::inside(kind));
        if !TOOLS.iter().any(|known| kind.starts_with(known)) {
            return Err(RequestError::param(
                format!("tools[{place}]"),
                "Tools that the provider runs itself have prices of their own and are not offered here: send tools that you run.",
            ));
        }
    }
    Ok(())
}

/// Members that Vertex AI has in its address or says itself, a mark that it puts nowhere by itself,
/// and those whose only values that are taken here say nothing.
fn is_not_said_on_vertex(name: &str) -> bool {
    ["model", VERTEX_VERSION.0, "cache_control"].contains(&name)
        || PRICED.iter().any(|(priced, _)| *priced == name)
}

/// Leaves out who else a mark's prompt is kept for, in what lies at a place of `text`: it is part of
/// a beta that Vertex AI does not have.
fn leave_out_scopes<'a>(text: &'a str, within: &Range<usize>, splice: &mut Splice<'a>) {
    const MARK: &str = r#""cache_control""#;
    const SCOPE: &str = "scope";
    let inside = json::slice(text, within);
    let mut written = 0;
    for (found, _) in inside.match_indices(MARK) {
        let rest = text
            .get(within.start + found + MARK.len()..)
            .unwrap_or_default();
        let value = rest.trim_ascii_start().strip_prefix(':');
        let Some(value) = value.map(str::trim_ascii_start) else {
            continue;
        };
        let start = text.len() - value.len();
        if start < written {
            // Within a mark: it means nothing there.
            continue;
        }
        let members: Vec<json::Member> = json::members(text, start).collect();
        let (first, last) = (members.first(), members.last());
        let span = first
            .zip(last)
            .map(|(first, last)| first.key.start..last.value.end);
        let kept = members.iter().filter(|member| member.name(text) != SCOPE);
        let kept: Vec<&str> = kept
            .map(|member| json::slice(text, &(member.key.start..member.value.end)))
            .collect();
        if let Some(span) = span.filter(|_| kept.len() < members.len()) {
            written = span.end;
            splice.replace(span, kept.join(","));
        }
    }
}

/// The headers that every request has, and the features that were asked for.
fn headers(quirks: &Quirks, betas: &[&str], host: Host) -> Vec<(String, String)> {
    let mut headers = host.headers(quirks);
    let asked: Vec<&str> = betas
        .iter()
        .flat_map(|value| value.split(','))
        .filter_map(|beta| open(beta.trim(), host))
        .collect();
    if asked.is_empty() {
        return headers;
    }
    let asked = asked.join(",");
    match headers.iter_mut().find(|(name, _)| name == BETA) {
        Some((_, value)) => value.push_str(&format!(",{asked}")),
        None => headers.push((BETA.to_owned(), asked)),
    }
    headers
}

/// A beta that may be asked for, with its date, as the host calls it.
fn open(beta: &str, host: Host) -> Option<&str> {
    let (beta, open): (&str, &[&str]) = match host {
        Host::Own => (beta, &BETAS),
        Host::Vertex if beta == VERTEX_RENAMED.0 => (VERTEX_RENAMED.1, &VERTEX_BETAS),
        Host::Vertex => (beta, &VERTEX_BETAS),
    };
    let dated = |open: &&str| {
        beta.strip_prefix(*open).is_some_and(|date| {
            date.len() > 1
                && date.starts_with('-')
                && date.bytes().all(|b| b.is_ascii_digit() || b == b'-')
        })
    };
    (beta.len() <= 64 && open.iter().any(dated)).then_some(beta)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Features;
    use crate::request::RequestLimits;

    static PLAIN: Features = Features::PLAIN;

    fn edit(limit: Option<u64>) -> Edit<'static> {
        Edit {
            upstream_model: "claude-up",
            output_limit: limit,
            output_tokens_max: 8_000,
            features: &PLAIN,
            ask_stream_usage: false,
        }
    }

    fn wire(body: &str, quirks: &str, limit: Option<u64>, betas: &[&str]) -> WireRequest {
        let request = MessagesRequest::parse(body.as_bytes(), &RequestLimits::default()).unwrap();
        let quirks = toml::from_str(quirks).unwrap();
        encode(&request, &edit(limit), &quirks, betas, Host::Own).unwrap()
    }

    fn refused(body: &str) -> Option<String> {
        let request = MessagesRequest::parse(body.as_bytes(), &RequestLimits::default()).unwrap();
        let refused =
            encode(&request, &edit(None), &Quirks::default(), &[], Host::Own).unwrap_err();
        refused.param.map(std::borrow::Cow::into_owned)
    }

    const ASK: &str = r#""messages":[{"role":"user","content":"Hi"}]"#;

    #[test]
    fn every_byte_travels_but_for_what_must_change() {
        let body = format!(
            r#"{{ "unknown" : [1.10, {{"a":"\u00e9"}}],"model":"claude", {ASK},"max_tokens":50 }}"#
        );
        let sent = wire(&body, "", None, &[]);
        assert_eq!(
            sent.body,
            format!(
                r#"{{ "unknown" : [1.10, {{"a":"\u00e9"}}],"model":"claude-up", {ASK},"max_tokens":50 }}"#
            )
        );
        assert_eq!(sent.path, "/messages");
        assert_eq!(
            sent.headers,
            [("anthropic-version".to_owned(), "2023-06-01".to_owned())]
        );
        let lower = wire(&body, "", Some(7), &[]);
        assert!(lower.body.ends_with(br#""max_tokens":7 }"#));
    }

    #[test]
    fn a_budget_stays_below_a_lowered_limit_or_goes() {
        let body = format!(
            r#"{{"model":"m","thinking":{{"type":"enabled","budget_tokens":4000}},"max_tokens":6000,{ASK}}}"#
        );
        let sent =
            |limit| String::from_utf8(wire(&body, "", Some(limit), &[]).body.to_vec()).unwrap();
        assert!(sent(3000).contains(r#""budget_tokens":2999"#));
        assert_eq!(
            sent(900),
            format!(r#"{{"model":"claude-up","max_tokens":900,{ASK}}}"#)
        );
    }

    #[test]
    fn a_file_drops_sets_and_refuses() {
        let body = format!(r#"{{"top_k":5,"model":"m","max_tokens":6,{ASK},"metadata":{{}}}}"#);
        let quirks = "drop = [\"top_k\", \"metadata\"]\nset = { anthropic_version = \"v\" }";
        assert_eq!(
            wire(&body, quirks, None, &[]).body,
            format!(r#"{{"model":"claude-up","max_tokens":6,{ASK},"anthropic_version":"v"}}"#)
        );
    }

    #[test]
    fn what_has_a_price_of_its_own_is_refused() {
        for (more, param) in [
            (r#""speed":"fast""#, "speed"),
            (r#""mcp_servers":[{"url":"https://x"}]"#, "mcp_servers"),
            (r#""container":"c_1""#, "container"),
            (r#""inference_geo":"us""#, "inference_geo"),
            (
                r#""tools":[{"name":"a","input_schema":{}},{"type":"web_search_20250305","name":"web_search"}]"#,
                "tools[1]",
            ),
            (
                r#""tools":[{"type":"code_\u0065xecution_20250825","name":"x"}]"#,
                "tools[0]",
            ),
        ] {
            let body = format!(r#"{{"model":"m","max_tokens":6,{ASK},{more}}}"#);
            assert_eq!(refused(&body).as_deref(), Some(param), "{more}");
        }
        let fine = format!(
            r#"{{"model":"m","max_tokens":6,{ASK},"speed":"standard","service_tier":"auto","tools":[{{"type":"bash_20250124","name":"bash"}}]}}"#
        );
        wire(&fine, "", None, &[]);
    }

    #[test]
    fn betas_that_change_no_price_travel() {
        let body = format!(r#"{{"model":"m","max_tokens":6,{ASK}}}"#);
        let asked = [
            "claude-code-20250219, fast-mode-2026-02-01",
            "interleaved-thinking-2025-05-14,context-1m-2025-08-07,effort-x",
        ];
        let sent = wire(
            &body,
            "headers = { \"anthropic-beta\" = \"own-1\" }",
            None,
            &asked,
        );
        let beta = sent.headers.iter().find(|(name, _)| name == BETA).unwrap();
        assert_eq!(
            beta.1,
            "own-1,claude-code-20250219,interleaved-thinking-2025-05-14"
        );
    }

    #[test]
    fn vertex_has_the_model_in_its_address_and_the_version_in_the_body() {
        let sent = |body: &str, quirks: &str, betas: &[&str]| {
            let limits = RequestLimits::default();
            let request = MessagesRequest::parse(body.as_bytes(), &limits).unwrap();
            let quirks = toml::from_str(quirks).unwrap();
            encode(&request, &edit(None), &quirks, betas, Host::Vertex).unwrap()
        };
        let body = format!(
            r#"{{"model":"m","service_tier":"auto", "max_tokens":6,{ASK},"stream":true,"anthropic_version":"x"}}"#
        );
        let betas = [
            "advanced-tool-use-2025-11-20,effort-2025-11-24",
            "context-management-2025-06-27",
        ];
        let wire = sent(&body, "", &betas);
        assert_eq!(
            wire.body,
            format!(
                r#"{{"max_tokens":6,{ASK},"stream":true,"anthropic_version":"vertex-2023-10-16"}}"#
            )
        );
        assert_eq!(wire.path, "/models/claude-up:streamRawPredict");
        let asked = "tool-search-tool-2025-10-19,context-management-2025-06-27";
        assert_eq!(wire.headers, [(BETA.to_owned(), asked.to_owned())]);
        let own = sent(
            &format!(r#"{{"max_tokens":6,{ASK},"model":"m"}}"#),
            "set = { anthropic_version = \"v\" }",
            &[],
        );
        assert_eq!(
            own.body,
            format!(r#"{{"max_tokens":6,{ASK},"anthropic_version":"v"}}"#)
        );
        assert_eq!(own.path, "/models/claude-up:rawPredict");
        let marked = |mark: &str| {
            format!(
                r#"{{"max_tokens":6,"system":[{{"type":"text","text":"a \"cache_control\"","cache_control":{mark}}}],{ASK}"#
            )
        };
        let scoped = marked(r#" {"type":"ephemeral", "scope":"global","ttl":"1h"}"#);
        let wire = sent(
            &(scoped + r#","model":"m","cache_control":{"type":"ephemeral"}}"#),
            "",
            &[],
        );
        let odd = marked(r#"{"scope":1,"x":{"cache_control":{"scope":2}}}"#);
        let odd = sent(&(odd + r#","model":"m"}"#), "", &[]);
        let left = r#""cache_control":{"x":{"cache_control":{"scope":2}}}"#;
        assert!(String::from_utf8(odd.body.to_vec()).unwrap().contains(left));
        let plain = marked(r#" {"type":"ephemeral","ttl":"1h"}"#);
        assert_eq!(
            wire.body,
            plain + r#","anthropic_version":"vertex-2023-10-16"}"#
        );
    }
}
