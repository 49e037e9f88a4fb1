//! The `tokenizer.json` that a provider file names for a model: read once at start, whatever models share it.

use std::{
    collections::HashMap,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::{LazyLock, Mutex, PoisonError},
};

use ring::digest::{SHA256, digest};
use tokens::{Encoding, Factor, Given, Tokenizer};

use crate::provider_file::ModelFile;

/// The largest file that is read, in bytes: those of models have up to 33 MB.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Files that were read. They are kept until the program ends, so none is read twice.
static READ: LazyLock<Mutex<HashMap<PathBuf, Given>>> = LazyLock::new(Mutex::default);

/// How a model's text is cut into tokens: by its own `tokenizer.json`, else by what its entry says.
///
/// # Errors
/// What is wrong with the entry or the file, for the operator.
pub fn of(model: &ModelFile) -> Result<Tokenizer, String> {
    let Some(path) = &model.tokenizer_json else {
        return Ok(model.tokenizer());
    };
    let wrong = |problem: String| format!("model {:?}: {problem}", model.id);
    if model.tokenizer.is_some() {
        let both = "write either tokenizer or tokenizer_json, not both";
        return Err(wrong(both.into()));
    }
    let given = given(path).map_err(|problem| {
        let path = path.display();
        wrong(format!("tokenizer_json {path} {problem}"))
    })?;
    let factor = model.token_factor.unwrap_or(Factor::EXACT);
    Ok(Tokenizer::new(Encoding::Given(given), factor))
}

fn given(path: &Path) -> Result<Given, String> {
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(given) = read.get(path) {
        return Ok(*given);
    }
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let file = File::open(path).map_err(cannot)?;
    let mut json = Vec::new();
    let mut bounded = file.take(FILE_BYTES_MAX + 1);
    bounded.read_to_end(&mut json).map_err(cannot)?;
    if json.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("has more than {FILE_BYTES_MAX} bytes"));
    }
    let given = open_tokenizer::read(&json, &name(&json)).map_err(|error| error.to_string())?;
    read.insert(path.to_owned(), given);
    Ok(given)
}

/// What is learned of a model is of its tokenizer: another file is another one.
fn name(json: &[u8]) -> String {
    let digest = digest(&SHA256, json);
    let start = digest.as_ref().iter().take(6);
    let hex: String = start.map(|byte| format!("{byte:02x}")).collect();
    format!("tokenizer.json {hex}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider_file::ProviderFile;

    /// A token for each letter, and one for each space with the letter behind it.
    const LETTERS: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
        "pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"never","split":true},
        "post_processor":null,"decoder":null,
        "model":{"type":"Unigram","unk_id":0,"byte_fallback":false,"vocab":[["<unk>",0.0],["a",-1.0],["b",-1.0],["▁a",-1.0],["▁b",-1.0]]}}"#;

    fn model(more: &str) -> ModelFile {
        let text = format!(
            "name = \"p\"\ndialect = \"openai\"\nbase_url = \"https://p.example/v1\"\napi_key_env = \"KEY\"\n\
             [[models]]\nid = \"m\"\ncontext_window = 1000\nprice = {{ prompt = \"1\", completion = \"1\" }}\n{more}"
        );
        let mut file = ProviderFile::parse("p.toml", &text).unwrap();
        file.models.remove(0)
    }

    #[test]
    fn a_model_counts_by_its_own_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters.json");
        std::fs::write(&path, LETTERS).unwrap();
        let named = |more: &str| model(&format!("tokenizer_json = {path:?}\n{more}"));
        let own = of(&named("")).unwrap();
        assert_eq!(own.count("ab ba"), 4);
        assert!(!named("").learns_factor(), "it is the model's own");
        assert!(named("token_factor = 1100").learns_factor());
        assert_eq!(of(&named("token_factor = 2000")).unwrap().count("ab ba"), 8);
        // Read once: the file may be gone.
        std::fs::remove_file(&path).unwrap();
        assert_eq!(of(&named("")), Ok(own));
        let both = of(&named("tokenizer = \"o200k_base\"")).unwrap_err();
        assert!(both.contains("not both"), "{both}");
        assert_eq!(of(&model("")), Ok(model("").tokenizer()));
    }

    #[test]
    fn a_file_that_is_none_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.json");
        let refused = || of(&model(&format!("tokenizer_json = {path:?}"))).unwrap_err();
        assert!(refused().contains("other.json cannot be read"));
        std::fs::write(&path, "{}").unwrap();
        let error = refused();
        assert!(
            error.contains("model \"m\"") && error.contains("no tokenizer.json"),
            "{error}"
        );
        let large = File::create(&path).unwrap();
        large.set_len(FILE_BYTES_MAX + 1).unwrap();
        assert!(refused().contains("more than 67108864 bytes"));
    }
}
