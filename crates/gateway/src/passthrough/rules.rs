//! The allow-list in a provider's file of what is passed through, and which of it a request means.

use std::collections::BTreeMap;

use billing::{Credits, Rates};
use http::Method;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::provider_file::ModelFile;

/// Rules of one file at most.
const RULES_MAX: usize = 512;
/// Segments of a path at most.
const SEGMENTS_MAX: usize = 16;
/// Where the id of what was made stands, unless the rule says otherwise.
const ID: &str = "/id";

/// What a provider's file lets through.
#[derive(Clone, Debug, Default)]
pub struct Rules(Vec<Rule>);

/// One method and path that is let through.
#[derive(Clone, Debug)]
pub struct Rule {
    /// As it is written: `GET /vector_stores/{id}`.
    pub name: String,
    /// What it costs.
    pub price: RulePrice,
    /// Whether everybody may reach what it shows: then nobody owns anything by it.
    pub shared: bool,
    /// Where an answer has the ids of what was made, as JSON pointers.
    pub makes: Vec<String>,
    method: Method,
    segments: Vec<Segment>,
}

/// What is passed through is charged by this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RulePrice {
    /// Nothing.
    Free,
    /// So many credits for each request that succeeds.
    Request(Credits),
    /// The price of the model in the body, by the usage that the answer reports.
    Usage,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Word(String),
    /// Any name that a provider has given.
    Id,
}

/// A path below `/v1` that can mean nothing else than what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainPath<'a>(Vec<&'a str>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    price: WrittenPrice,
    #[serde(default)]
    shared: bool,
    #[serde(default)]
    makes: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenPrice {
    Word(String),
    Table { request: Credits },
}

impl Rules {
    /// Each rule.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter()
    }
}

impl Rule {
    /// The one of these rules that a request means: of several that fit, the one with a word where
    /// another takes any name.
    pub fn meant<'a>(
        rules: impl Iterator<Item = &'a Self>,
        method: &Method,
        path: &PlainPath<'_>,
    ) -> Option<&'a Self> {
        let fits = rules.filter(|rule| rule.fits(method, path));
        fits.min_by_key(|rule| {
            let ids = rule.segments.iter().map(|one| *one == Segment::Id);
            ids.collect::<Vec<_>>()
        })
    }

    /// Whether a request means it.
    fn fits(&self, method: &Method, path: &PlainPath<'_>) -> bool {
        let word = |(mine, theirs): (&Segment, &&str)| match mine {
            Segment::Word(word) => word == theirs,
            Segment::Id => true,
        };
        self.method == *method
            && self.segments.len() == path.0.len()
            && self.segments.iter().zip(&path.0).all(word)
    }

    /// The names in a path that fits, in order. The first says whose the request is; those behind
    /// it are below that one, which is the provider's to judge.
    pub fn ids<'a>(&self, path: &PlainPath<'a>) -> Vec<&'a str> {
        let both = self.segments.iter().zip(&path.0);
        let ids = both.filter(|(mine, _)| **mine == Segment::Id);
        ids.map(|(_, theirs)| *theirs).collect()
    }

    /// Whether the request takes away what its path names.
    #[must_use]
    pub fn removes(&self) -> bool {
        let ids = self.segments.iter().filter(|one| **one == Segment::Id);
        self.method == Method::DELETE
            && ids.count() == 1
            && self.segments.last() == Some(&Segment::Id)
    }

    /// What it is charged by, as a model would be; `None` where a model of the catalogue is.
    #[must_use]
    pub fn model_file(&self) -> Option<ModelFile> {
        let request = match self.price {
            RulePrice::Free => Credits::ZERO,
            RulePrice::Request(credits) => credits,
            RulePrice::Usage => return None,
        };
        Some(ModelFile {
            price: Some(Rates {
                request: Some(request),
                ..Rates::plain(Credits::ZERO, Credits::ZERO)
            }),
            ..ModelFile::named(self.name.clone())
        })
    }

    fn read(name: &str, written: Written) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("{name:?}: {what}"));
        let Some((method, path)) = name.split_once(' ') else {
            return wrong("a rule is a method and a path, as in \"GET /vector_stores/{id}\"");
        };
        let method = match method {
            "GET" => Method::GET,
            "POST" => Method::POST,
            "PUT" => Method::PUT,
            "PATCH" => Method::PATCH,
            "DELETE" => Method::DELETE,
            _ => return wrong("the method is GET, POST, PUT, PATCH or DELETE"),
        };
        let Some(segments) = segments(path) else {
            return wrong("a path has a slash before each of its parts, each a plain word or {id}");
        };
        let price = match written.price {
            WrittenPrice::Word(word) if word == "free" => RulePrice::Free,
            WrittenPrice::Word(word) if word == "usage" => RulePrice::Usage,
            WrittenPrice::Table { request } if !request.is_negative() => {
                RulePrice::Request(request)
            }
            WrittenPrice::Word(_) | WrittenPrice::Table { .. } => {
                return wrong("price is \"free\", \"usage\" or { request = \"0.01\" }");
            }
        };
        let posts = method == Method::POST;
        if price == RulePrice::Usage && !posts {
            return wrong("only POST is charged by usage");
        }
        let names_one = segments.contains(&Segment::Id);
        if !posts && !names_one && !written.shared {
            return wrong(
                "nothing in its path says whose it is, so every key would reach what all others made: write shared = true if that is meant",
            );
        }
        if written.shared && written.makes.is_some() {
            return wrong("what is shared has no owner: leave out makes, or shared");
        }
        let makes_one = posts && !names_one && !written.shared && price != RulePrice::Usage;
        let makes = match written.makes {
            Some(makes) => makes,
            None if makes_one => vec![ID.to_owned()],
            None => Vec::new(),
        };
        if makes.iter().any(|pointer| !pointer.starts_with('/')) {
            return wrong("makes has JSON pointers, as \"/id\"");
        }
        Ok(Self {
            name: name.to_owned(),
            price,
            shared: written.shared,
            makes,
            method,
            segments,
        })
    }
}

impl<'a> PlainPath<'a> {
    /// Reads what stands behind `/v1`. `None` for what a server could take for another path: empty
    /// parts, dots, backslashes, anything escaped.
    #[must_use]
    pub fn read(path: &'a str) -> Option<Self> {
        let parts: Vec<&str> = path.strip_prefix("/v1/")?.split('/').collect();
        let plain = |part: &&str| {
            !part.is_empty()
                && part.len() <= 512
                && !part.bytes().all(|byte| byte == b'.')
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:~@=+,".contains(&byte))
        };
        (parts.len() <= SEGMENTS_MAX && parts.iter().all(plain)).then_some(Self(parts))
    }

    /// The path below a provider's base URL.
    #[must_use]
    pub fn below(&self) -> String {
        format!("/{}", self.0.join("/"))
    }
}

fn segments(path: &str) -> Option<Vec<Segment>> {
    let parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    let segment = |part: &str| {
        let inside = part
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'));
        let text = inside.unwrap_or(part);
        let plain = !text.is_empty()
            && !text.bytes().all(|byte| byte == b'.')
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        plain.then(|| match inside {
            Some(_) => Segment::Id,
            None => Segment::Word(text.to_owned()),
        })
    };
    let segments: Option<Vec<Segment>> = parts.into_iter().map(segment).collect();
    segments.filter(|segments| segments.len() <= SEGMENTS_MAX)
}

impl<'de> Deserialize<'de> for Rules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = BTreeMap::<String, Written>::deserialize(deserializer)?;
        if written.len() > RULES_MAX {
            return Err(D::Error::custom("passthrough has 512 rules at most"));
        }
        let rules = written
            .into_iter()
            .map(|(name, rule)| Rule::read(&name, rule));
        let rules = rules.collect::<Result<_, _>>().map_err(D::Error::custom)?;
        Ok(Self(rules))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Result<Rules, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_narrowest_rule_is_meant() {
        let rules = rules(
            "\"POST /threads/{id}\" = { price = \"free\" }\n\
             \"POST /threads/runs\" = { price = { request = \"0.5\" } }\n\
             \"GET /threads/{id}/runs/{run_id}\" = { price = \"free\" }\n",
        )
        .unwrap();
        let find = |method: Method, path: &str| {
            let path = PlainPath::read(path).unwrap();
            let rule = Rule::meant(rules.iter(), &method, &path)?;
            Some((rule.name.clone(), rule.ids(&path).join(" ")))
        };
        let found = |name: &str, ids: &str| Some((name.to_owned(), ids.to_owned()));
        assert_eq!(
            find(Method::POST, "/v1/threads/runs"),
            found("POST /threads/runs", "")
        );
        assert_eq!(
            find(Method::POST, "/v1/threads/x"),
            found("POST /threads/{id}", "x")
        );
        assert_eq!(
            find(Method::GET, "/v1/threads/a/runs/b"),
            found("GET /threads/{id}/runs/{run_id}", "a b")
        );
        assert_eq!(find(Method::DELETE, "/v1/threads/x"), None);
        assert_eq!(find(Method::POST, "/v1/threads/x/runs"), None);
    }

    #[test]
    fn a_path_that_could_mean_another_is_none() {
        for path in [
            "/v1/a/../b",
            "/v1/./b",
            "/v1//b",
            "/v1/a/",
            "/v1/a%2fb",
            "/v1/a%2e%2e",
            "/v1/a\\b",
            "/v1/",
            "/v2/a",
            "/v1/a;b",
            "/v1/...",
            "/v1/a b",
        ] {
            assert_eq!(PlainPath::read(path), None, "{path}");
        }
        let path = PlainPath::read("/v1/models/ft:gpt-4o:org::x").unwrap();
        assert_eq!(path.below(), "/models/ft:gpt-4o:org::x");
    }

    #[test]
    fn what_nobody_owns_must_be_said_to_be_shared() {
        let free =
            |rule: &str, more: &str| rules(&format!("\"{rule}\" = {{ price = \"free\"{more} }}"));
        assert!(
            free("GET /vector_stores", "")
                .unwrap_err()
                .contains("shared = true")
        );
        assert!(free("DELETE /all", "").is_err());
        let listed = free("GET /vector_stores", ", shared = true").unwrap();
        assert!(listed.0[0].makes.is_empty());
        assert_eq!(free("POST /vector_stores", "").unwrap().0[0].makes, ["/id"]);
        assert!(
            free("POST /vector_stores/{id}/files", "").unwrap().0[0]
                .makes
                .is_empty()
        );
        let complete = free("POST /uploads/{id}/complete", ", makes = [\"/file/id\"]").unwrap();
        assert_eq!(complete.0[0].makes, ["/file/id"]);
        assert!(free("DELETE /uploads/{id}", "").unwrap().0[0].removes());
        assert!(!free("DELETE /a/{id}/b/{id}", "").unwrap().0[0].removes());
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, part) in [
            ("\"FETCH /a\" = { price = \"free\" }", "the method"),
            ("\"POST a\" = { price = \"free\" }", "slash"),
            ("\"POST /a/..\" = { price = \"free\" }", "slash"),
            ("\"POST /a b\" = { price = \"free\" }", "slash"),
            ("\"POST\" = { price = \"free\" }", "a method and a path"),
            ("\"POST /a\" = { price = \"cheap\" }", "price is"),
            ("\"POST /a\" = { price = { request = \"-1\" } }", ""),
            ("\"GET /a/{id}\" = { price = \"usage\" }", "only POST"),
            (
                "\"POST /a\" = { price = \"free\", shared = true, makes = [\"/id\"] }",
                "no owner",
            ),
            (
                "\"POST /a\" = { price = \"free\", makes = [\"id\"] }",
                "JSON pointers",
            ),
            ("\"POST /a\" = { }", "price"),
        ] {
            let error = rules(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
