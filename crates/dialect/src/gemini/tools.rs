//! Functions that the model may call, and the choice among them.

use crate::error::RequestError;
use crate::source::{Choice, Function, Object, Source, join};

/// The two members that tools become; absent where there are none.
#[derive(Debug, Default)]
pub(super) struct Tools {
    /// `tools`.
    pub(super) declarations: Option<String>,
    /// `toolConfig`.
    pub(super) config: Option<String>,
}

/// Writes the tools.
///
/// # Errors
/// Tools that are no functions: those that Google runs itself have prices of their own. One call at a
/// time cannot be asked for.
pub(super) fn write(source: &Source<'_>) -> Result<Tools, RequestError> {
    let functions = Function::all(source)?;
    let choice = Choice::read(source, functions.len())?;
    if functions.is_empty() {
        return Ok(Tools::default());
    }
    if source.get("parallel_tool_calls") == Some("false") {
        source.cannot(
            "parallel_tool_calls",
            "This model may always call several tools at once: leave `parallel_tool_calls` out.",
        )?;
    }
    let mut list = String::new();
    for function in &functions {
        let mut declaration = Object::new();
        declaration
            .put("name", function.name)
            .put_some("description", function.description)
            .put("parametersJsonSchema", &function.parameters);
        join(&mut list, &declaration.end());
    }
    let mode = match choice {
        Choice::Auto => None,
        Choice::None => Some(r#""mode":"NONE""#.to_owned()),
        Choice::Required => Some(r#""mode":"ANY""#.to_owned()),
        Choice::Named(name) => Some(format!(r#""mode":"ANY","allowedFunctionNames":[{name}]"#)),
    };
    Ok(Tools {
        declarations: Some(format!(r#"[{{"functionDeclarations":[{list}]}}]"#)),
        config: mode.map(|mode| format!(r#"{{"functionCallingConfig":{{{mode}}}}}"#)),
    })
}
