//! Log probabilities: Google's two lists as OpenAI's one.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::counts::Json;
use crate::json;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawLogprobs<'a> {
    #[serde(borrow, default)]
    chosen_candidates: Option<Vec<RawToken<'a>>>,
    #[serde(borrow, default)]
    top_candidates: Option<Vec<RawTop<'a>>>,
}

#[derive(Deserialize)]
struct RawTop<'a> {
    #[serde(borrow, default)]
    candidates: Option<Vec<RawToken<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawToken<'a> {
    #[serde(borrow, default)]
    token: Json<'a>,
    #[serde(borrow, default)]
    log_probability: Json<'a>,
}

impl RawLogprobs<'_> {
    /// The `logprobs` member of a choice; `None` where nothing was chosen.
    pub(super) fn json(&self) -> Option<String> {
        let chosen = self.chosen_candidates.as_deref().unwrap_or_default();
        let tops = self.top_candidates.as_deref().unwrap_or_default();
        let mut content = String::new();
        for (place, token) in chosen.iter().enumerate() {
            let Some(own) = token.json() else {
                continue;
            };
            let top = tops.get(place).and_then(|top| top.candidates.as_deref());
            let others: Vec<String> = top
                .unwrap_or_default()
                .iter()
                .filter_map(|token| token.json().map(|own| format!("{{{own}}}")))
                .collect();
            if !content.is_empty() {
                content.push(',');
            }
            content.push_str(&format!(
                r#"{{{own},"top_logprobs":[{}]}}"#,
                others.join(",")
            ));
        }
        (!content.is_empty()).then(|| format!(r#"{{"content":[{content}],"refusal":null}}"#))
    }
}

impl RawToken<'_> {
    /// Its members as OpenAI has them.
    fn json(&self) -> Option<String> {
        let token = self.token.map(RawValue::get)?;
        let text = token.starts_with('"').then(|| json::inside(token))?;
        let bytes: Vec<String> = json::unescape(text)
            .bytes()
            .map(|byte| byte.to_string())
            .collect();
        let probability = self.log_probability.map_or("0", RawValue::get);
        Some(format!(
            r#""token":{token},"logprob":{probability},"bytes":[{}]"#,
            bytes.join(",")
        ))
    }
}
