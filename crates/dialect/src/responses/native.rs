//! A Responses request to a provider that has this API: its bytes travel, with what the gateway must change spliced in.

use bytes::Bytes;

use super::kept::referenced;
use super::request::ResponsesRequest;
use crate::body::leave_out;
use crate::error::RequestError;
use crate::json::{self, Splice};
use crate::messages::{literal, member};
use crate::openai::{Edit, WireRequest};
use crate::pair::NativeEdit;
use crate::quirks::Quirks;

/// Where requests go.
const PATH: &str = "/responses";

/// The least output limit that OpenAI takes. Source: its API reference, `max_output_tokens`.
pub(crate) const LEAST_OUTPUT: u64 = 16;

/// Searches that one response may make where the client says nothing: credits are held for all.
const SEARCHES_MAX: u64 = 8;

/// Tools that the client runs itself, or that cost nothing but tokens.
const OWN_TOOLS: [&str; 7] = [
    "function",
    "custom",
    "local_shell",
    "apply_patch",
    "computer",
    "computer_use_preview",
    "tool_search",
];

/// What a response may use beside what can be counted in its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Searches {
    /// Searches at most.
    pub most: u64,
    /// The place of the tool in the list of tools.
    pub tool: usize,
}

impl ResponsesRequest<'_> {
    /// What it may search on the provider's side; `None` where it brings no such tool.
    #[must_use]
    pub fn searches(&self) -> Option<Searches> {
        let tool = self
            .tools()
            .position(|tool| is_search(kind_of(tool).as_ref()))?;
        Some(Searches {
            most: self.tool_calls_max().unwrap_or(SEARCHES_MAX),
            tool,
        })
    }

    fn tool_calls_max(&self) -> Option<u64> {
        self.get("max_tool_calls")?.parse().ok()
    }

    fn tools(&self) -> impl Iterator<Item = &str> {
        let list = self.get("tools").unwrap_or("[]");
        json::elements(list, 0).map(move |at| json::slice(list, &at))
    }
}

/// Writes a request for a provider that has this API.
///
/// # Errors
/// A member, a tool or an item with a price of its own, or one that belongs to the operator.
pub(crate) fn encode(
    request: &ResponsesRequest<'_>,
    edit: &Edit<'_>,
    quirks: &Quirks,
    native: &NativeEdit<'_>,
) -> Result<WireRequest, RequestError> {
    refuse_members(request, quirks, native)?;
    refuse_tools(request)?;
    refuse_items(request, native)?;
    let text = request.text();
    let limit = edit
        .output_limit
        .filter(|most| request.output_limit().is_none_or(|asked| asked > *most));
    let mut add = vec![
        ("max_output_tokens", limit.map(|limit| limit.to_string())),
        ("store", (!native.keep).then(|| "false".to_owned())),
        (
            "max_tool_calls",
            request
                .searches()
                .filter(|_| request.tool_calls_max().is_none())
                .map(|searches| searches.most.to_string()),
        ),
    ];
    let mut splice = Splice::default();
    let mut end = text.len() - text.trim_ascii_start().len() + 1;
    let mut kept = false;
    let members = request.members();
    for (index, member) in members.iter().enumerate() {
        let name = member.name.as_ref();
        let sent = json::slice(text, &member.value);
        end = member.value.end;
        let set = quirks.set.get(name).map(ToString::to_string);
        let listed = |names: &[String]| names.iter().any(|other| other == name);
        if set.is_none() && (listed(&quirks.unsupported) || listed(&quirks.drop)) {
            leave_out(members, index, kept, &mut splice);
            continue;
        }
        kept = true;
        let added = add.iter_mut().find(|(other, _)| *other == name);
        let new = match (set, added) {
            (Some(set), _) => Some(set),
            (None, Some((_, new))) => new.take(),
            (None, None) if name == "model" => Some(json::quote(edit.upstream_model)),
            (None, None) => None,
        };
        if let Some(new) = new.filter(|new| new != sent) {
            splice.replace(member.value.clone(), new);
        }
    }
    let set = quirks.set.iter();
    let set = set.filter(|(name, _)| !members.iter().any(|member| member.name == name.as_str()));
    let set = set.map(|(name, value)| (name.as_str(), value.to_string()));
    let add = add.into_iter();
    let added = add.filter_map(|(name, value)| Some((name, value?)));
    for (name, value) in added.chain(set) {
        splice.insert(end, format!(",{}:{value}", json::quote(name)));
    }
    Ok(WireRequest {
        path: PATH.to_owned(),
        headers: quirks.header_list(),
        body: Bytes::from(splice.apply(text)),
    })
}

fn refuse_members(
    request: &ResponsesRequest<'_>,
    quirks: &Quirks,
    native: &NativeEdit<'_>,
) -> Result<(), RequestError> {
    for sent in request.members() {
        let name = sent.name.as_ref();
        let Some(value) = request.get(name) else {
            continue;
        };
        let wrong = match name {
            "conversation" => "Conversations are not kept here: use `previous_response_id`.",
            "previous_response_id" if !native.continues => {
                "There is no such response: send the whole conversation as `input`."
            }
            "background" if value == "true" => "Nothing runs in the background here.",
            "prompt" => "Prompts that are kept at the provider belong to its operator: send yours.",
            "service_tier" if matches!(value, r#""auto""# | r#""default""#) => continue,
            _ if quirks.unsupported.iter().any(|other| other == name)
                && !quirks.drop_unsupported =>
            {
                "This member is not supported by the provider of this model: leave it out."
            }
            _ => continue,
        };
        return Err(RequestError::param(name.to_owned(), wrong));
    }
    Ok(())
}

fn refuse_tools(request: &ResponsesRequest<'_>) -> Result<(), RequestError> {
    for (place, tool) in request.tools().enumerate() {
        let kind = kind_of(tool);
        let fine = match kind.as_ref() {
            "namespace" => {
                let list = member(tool, "tools").unwrap_or("[]");
                json::elements(list, 0).all(|at| {
                    matches!(
                        kind_of(json::slice(list, &at)).as_ref(),
                        "function" | "custom"
                    )
                })
            }
            // One that the provider hosts is sold by the container.
            "shell" => member(tool, "environment")
                .is_some_and(|environment| kind_of(environment) == "local"),
            kind => OWN_TOOLS.contains(&kind) || is_search(kind),
        };
        if !fine {
            return Err(RequestError::param(
                format!("tools[{place}]"),
                "This tool runs at the provider, on data of its operator's or at a price that no model has here: send tools that you run.",
            ));
        }
    }
    Ok(())
}

/// Refuses what is named by an id that only the provider knows, and is not known to be the client's
/// own: it may be somebody else's.
fn refuse_items(
    request: &ResponsesRequest<'_>,
    native: &NativeEdit<'_>,
) -> Result<(), RequestError> {
    let own = |list: &[&str], id: &str| list.contains(&id);
    let input = request.get("input").unwrap_or_default();
    for (place, at) in json::elements(input, 0).enumerate() {
        let item = json::slice(input, &at);
        let named = referenced(item);
        if kind_of(item) == "item_reference" || named.is_some() {
            if named.is_some_and(|id| own(native.items, &id)) {
                continue;
            }
            return Err(RequestError::param(
                format!("input[{place}]"),
                "There is no such item that this key may name: send the item itself, or `previous_response_id`.",
            ));
        }
        // What a tool gave back is not held for by its size.
        for (list, files) in [("content", native.files), ("output", &[])] {
            let list = member(item, list).unwrap_or_default();
            let one = list.starts_with('{').then_some(list);
            let parts = json::elements(list, 0).map(|at| json::slice(list, &at));
            let mut ids = parts.chain(one).filter_map(|part| member(part, "file_id"));
            if !ids.all(|id| id == "null" || own(files, &json::unescape(json::inside(id)))) {
                return Err(RequestError::param(
                    format!("input[{place}]"),
                    "This file is none that this key has made at the provider of this model: send the file along.",
                ));
            }
        }
    }
    Ok(())
}

fn is_search(kind: &str) -> bool {
    kind == "web_search" || kind.starts_with("web_search_")
}

fn kind_of(object: &str) -> std::borrow::Cow<'_, str> {
    json::unescape(json::inside(literal(object, "type").unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Features;
    use crate::request::RequestLimits;

    static PLAIN: Features = Features::PLAIN;

    fn wire(body: &str, quirks: &str, limit: Option<u64>, keep: bool) -> Result<String, String> {
        let request = ResponsesRequest::parse(body.as_bytes(), &RequestLimits::default()).unwrap();
        let edit = Edit {
            upstream_model: "up",
            output_limit: limit,
            output_tokens_max: 8_000,
            features: &PLAIN,
            ask_stream_usage: true,
        };
        let quirks = toml::from_str(quirks).unwrap();
        let native = NativeEdit {
            betas: &[],
            keep,
            continues: false,
            files: &["file-mine"],
            items: &["msg_mine"],
        };
        match encode(&request, &edit, &quirks, &native) {
            Ok(wire) => {
                assert_eq!(wire.path, "/responses");
                Ok(String::from_utf8(wire.body.to_vec()).unwrap())
            }
            Err(error) => Err(error.param.unwrap().into_owned()),
        }
    }

    #[test]
    fn every_byte_travels_but_for_what_must_change() {
        let body = r#"{ "unknown" : [1.10, {"a":"\u00e9"}],"model":"m", "input":"Hi","store":true ,"max_output_tokens":50 }"#;
        let same = body.replace("\"m\"", "\"up\"");
        assert_eq!(wire(body, "", None, true).unwrap(), same);
        assert_eq!(wire(body, "", Some(60), true).unwrap(), same);
        assert_eq!(
            wire(body, "", Some(20), false).unwrap(),
            same.replace("50", "20").replace("true", "false")
        );
        let bare = r#"{"input":"Hi","model":"m"}"#;
        assert_eq!(
            wire(bare, "set = { a = 1 }", Some(20), false).unwrap(),
            r#"{"input":"Hi","model":"up","max_output_tokens":20,"store":false,"a":1}"#
        );
    }

    #[test]
    fn a_file_drops_and_refuses() {
        let body = r#"{"service_tier":"auto","input":"Hi","top_p":1,"model":"m","user":"u"}"#;
        let quirks = "unsupported = [\"service_tier\"]\ndrop = [\"top_p\", \"user\"]";
        assert_eq!(
            wire(body, quirks, None, true).unwrap(),
            r#"{"input":"Hi","model":"up"}"#
        );
        let flex = body.replace("auto", "flex");
        assert_eq!(wire(&flex, quirks, None, true).unwrap_err(), "service_tier");
    }

    #[test]
    fn what_is_the_operators_or_has_a_price_of_its_own_is_refused() {
        for (more, param) in [
            (r#""background":true"#, "background"),
            (r#""conversation":"conv_1""#, "conversation"),
            (r#""prompt":{"id":"p"}"#, "prompt"),
            (r#""previous_response_id":"resp_1""#, "previous_response_id"),
            (
                r#""tools":[{"type":"function","name":"f"},{"type":"file_search","vector_store_ids":["v"]}]"#,
                "tools[1]",
            ),
            (r#""tools":[{"type":"code_interpreter"}]"#, "tools[0]"),
            (r#""tools":[{"type":"image_generation"}]"#, "tools[0]"),
            (
                r#""tools":[{"type":"m\u0063p","server_url":"x"}]"#,
                "tools[0]",
            ),
            (
                r#""tools":[{"type":"shell","environment":{"type":"container_auto"}}]"#,
                "tools[0]",
            ),
            (
                r#""tools":[{"type":"namespace","tools":[{"type":"mcp"}]}]"#,
                "tools[0]",
            ),
            (
                r#""input":[{"type":"item_reference","id":"msg_1"}]"#,
                "input[0]",
            ),
            (
                r#""input":[{"role":"user","content":[{"type":"input_image","file_id":"file_1"}]}]"#,
                "input[0]",
            ),
            (
                r#""input":[{"type":"computer_call_output","output":{"file_id":"file_1"}}]"#,
                "input[0]",
            ),
        ] {
            let input = if more.contains("\"input\"") {
                ""
            } else {
                r#","input":"a""#
            };
            let body = format!(r#"{{"model":"m"{input},{more}}}"#);
            assert_eq!(wire(&body, "", None, true).unwrap_err(), param, "{body}");
        }
    }

    #[test]
    fn what_is_the_clients_own_may_be_named() {
        let named = r#"{"model":"m","input":[{"role":"user","content":[{"type":"input_file","file_id":"file-mine"},{"type":"input_image","file_id":null,"image_url":"u"}]},{"type":"item_reference","id":"msg_mine"},{"id":"msg_mine"}]}"#;
        assert_eq!(
            wire(named, "", None, true).unwrap(),
            named.replace("\"m\"", "\"up\"")
        );
        for (mine, theirs) in [("file-mine", "file-other"), ("msg_mine", "msg_other")] {
            let theirs = named.replacen(mine, theirs, 1);
            assert!(wire(&theirs, "", None, true).is_err(), "{theirs}");
        }
        // Their size is not held for.
        let output = r#"{"model":"m","input":[{"type":"computer_call_output","output":{"file_id":"file-mine"}}]}"#;
        assert_eq!(wire(output, "", None, true).unwrap_err(), "input[0]");
    }

    #[test]
    fn searches_have_a_bound() {
        let ask = |more: &str| {
            let body = format!(
                r#"{{"model":"m","input":"a","tools":[{{"type":"custom","name":"c"}},{{"type":"web_search"}}]{more}}}"#
            );
            let limits = RequestLimits::default();
            let searches = ResponsesRequest::parse(body.as_bytes(), &limits)
                .unwrap()
                .searches();
            (searches.unwrap(), wire(&body, "", None, true).unwrap())
        };
        let (searches, body) = ask("");
        assert_eq!((searches.most, searches.tool), (SEARCHES_MAX, 1));
        assert!(body.ends_with(r#","max_tool_calls":8}"#));
        let (searches, body) = ask(r#","max_tool_calls":3"#);
        assert_eq!(searches.most, 3);
        assert!(body.ends_with(r#","max_tool_calls":3}"#));
    }
}
