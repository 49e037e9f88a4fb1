//! Moderations and reranking: answers that depend on nothing but the words.

use serde_json::{Value, json};

use crate::request::words_of_value;

/// Documents that one search unit covers.
const DOCUMENTS_PER_SEARCH: usize = 100;

/// OpenAI's moderation: nothing is objectionable. It reports no usage.
pub(crate) fn moderation(body: &Value) -> Option<Value> {
    let inputs = match &body["input"] {
        Value::String(_) => 1,
        Value::Array(list) if !list.is_empty() => list.len(),
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            return None;
        }
    };
    let result = json!({"flagged": false, "categories": {"violence": false},
        "category_scores": {"violence": 0.01}});
    Some(json!({"id": "modr-mock", "model": body["model"], "results": vec![result; inputs]}))
}

/// Cohere's rerank: the documents in the order of their words; billed by search units.
pub(crate) fn rerank(body: &Value) -> Option<Value> {
    let documents = body["documents"]
        .as_array()
        .filter(|list| !list.is_empty())?;
    let _ = body["query"].as_str()?;
    let mut order: Vec<(usize, u64)> = documents
        .iter()
        .map(|document| match document {
            Value::Object(fields) => fields.values().map(words_of_value).sum(),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => words_of_value(document),
        })
        .enumerate()
        .collect();
    order.sort_by_key(|(_, words)| std::cmp::Reverse(*words));
    let most = body["top_n"].as_u64().unwrap_or(u64::MAX);
    let results: Vec<Value> = order
        .iter()
        .take(usize::try_from(most).unwrap_or(usize::MAX))
        .enumerate()
        .map(|(place, (index, _))| {
            json!({"index": index, "relevance_score": 1.0 / (1.0 + place as f64)})
        })
        .collect();
    let units = documents.len().div_ceil(DOCUMENTS_PER_SEARCH);
    Some(json!({"id": "rerank-mock", "results": results,
        "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": units}}}))
}
