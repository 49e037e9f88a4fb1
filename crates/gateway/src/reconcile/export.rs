//! Exports of OpenAI's and Anthropic's consoles, known by their columns.

use std::{
    collections::BTreeSet,
    io::{self, Read},
};

use billing::Credits;
use price_tables::Decimal;

use super::{Figures, Measure, family};

/// The longest line of an export, in bytes.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Days times models of an export at most.
const PLACES_MAX: usize = 100_000;
/// Digits after the point of an amount that are kept: a nano-credit.
const FRACTION_DIGITS: usize = 9;

/// Why an export cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// It is no CSV, or cannot be read.
    #[error("{0}")]
    Csv(#[from] csv::Error),
    /// Its columns are those of no export that is known here.
    #[error(
        "its columns are of no export that is known here: OpenAI's usage has model, input_tokens and \
         output_tokens, OpenAI's costs amount_value, Anthropic's usage usage_input_tokens_no_cache, \
         Anthropic's costs cost_usd"
    )]
    Unknown,
    /// A row has something else in a column than should be there.
    #[error("line {line}: {column}: {problem}")]
    Row {
        /// The line, from 1.
        line: u64,
        /// The column.
        column: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// Costs are in another currency than the prices here.
    #[error("line {line}: amounts in {currency}; only US dollars can be compared with credits")]
    Currency {
        /// The line, from 1.
        line: u64,
        /// The currency.
        currency: String,
    },
    /// There are too many days and models.
    #[error("more than {PLACES_MAX} days and models; pass --from and --to")]
    TooMany,
}

/// An export, summed up.
#[derive(Clone, Debug, Default)]
pub struct Export {
    /// Its figures.
    pub figures: Figures,
    /// What it has figures of.
    pub measures: BTreeSet<Measure>,
    /// Whether it names models.
    pub by_model: bool,
    /// Whether it tells tokens that were written to a cache from other fresh ones.
    pub writes_apart: bool,
    /// Days in the export, those without figures included.
    pub days: BTreeSet<String>,
}

/// The kinds of exports. Columns as the consoles' exports of 2025 and 2026 have them.
#[derive(Clone, Copy)]
enum Kind {
    OpenAiUsage,
    OpenAiCosts,
    AnthropicUsage,
    AnthropicCosts,
}

/// A row, with its columns by name.
struct Row<'a> {
    headers: &'a csv::StringRecord,
    record: &'a csv::StringRecord,
}

impl Row<'_> {
    fn get(&self, column: &str) -> Option<&str> {
        let at = self.headers.iter().position(|name| name.trim() == column)?;
        self.record
            .get(at)
            .map(str::trim)
            .filter(|text| !text.is_empty())
    }

    fn line(&self) -> u64 {
        self.record.position().map_or(0, csv::Position::line)
    }

    fn wrong(&self, column: &'static str, problem: impl Into<String>) -> ExportError {
        ExportError::Row {
            line: self.line(),
            column,
            problem: problem.into(),
        }
    }

    /// A count; what is empty is none.
    fn count(&self, column: &'static str) -> Result<i128, ExportError> {
        let Some(text) = self.get(column) else {
            return Ok(0);
        };
        let whole = text.strip_suffix(".0").unwrap_or(text);
        let count: u64 = whole
            .parse()
            .map_err(|_| self.wrong(column, format!("{text:?} is no count")))?;
        Ok(i128::from(count))
    }

    /// An amount in nano-credits; digits beyond those are cut. Consoles write it as floats print.
    fn amount(&self, column: &'static str) -> Result<i128, ExportError> {
        let Some(text) = self.get(column) else {
            return Ok(0);
        };
        let wrong = || self.wrong(column, format!("{text:?} is no amount"));
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, text),
        };
        let exact: Decimal = digits.parse().map_err(|_| wrong())?;
        let exact = exact.to_string();
        let short = match exact.split_once('.') {
            Some((whole, fraction)) => {
                let kept: String = fraction.chars().take(FRACTION_DIGITS).collect();
                format!("{whole}.{kept}")
            }
            None => exact,
        };
        let amount: Credits = short.parse().map_err(|_| wrong())?;
        Ok(sign * i128::from(amount.nanos()))
    }

    fn day(&self, column: &'static str) -> Result<String, ExportError> {
        let text = self.get(column).unwrap_or_default();
        let day = text.get(..10).unwrap_or_default();
        match day.parse::<jiff::civil::Date>() {
            Ok(_) => Ok(day.to_owned()),
            Err(_) => Err(self.wrong(column, format!("{text:?} does not begin with a day"))),
        }
    }
}

impl Export {
    /// Reads an export, of the days from `from` until before `to`. Only sums are kept.
    ///
    /// # Errors
    /// [`ExportError`].
    pub fn read(
        source: impl Read,
        from: Option<&str>,
        to: Option<&str>,
    ) -> Result<Self, ExportError> {
        let source = ShortLines { source, length: 0 };
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(source);
        let headers = reader.headers()?.clone();
        let kind = Kind::of(&headers).ok_or(ExportError::Unknown)?;
        let has = |column: &str| headers.iter().any(|name| name.trim() == column);
        let mut export = Self {
            measures: kind.measures(&has),
            writes_apart: matches!(kind, Kind::AnthropicUsage),
            ..Self::default()
        };
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record)? {
            let row = Row {
                headers: &headers,
                record: &record,
            };
            let day = row.day(kind.day_column())?;
            if from.is_some_and(|from| *day < *from) || to.is_some_and(|to| *day >= *to) {
                continue;
            }
            export.days.insert(day.clone());
            let figures = kind.figures(&row)?;
            if figures.iter().all(|(_, amount)| *amount == 0) {
                continue;
            }
            let model = kind.model(&row);
            export.by_model |= !model.is_empty();
            let sums = export.figures.entry((day, model)).or_default();
            for (measure, amount) in figures {
                *sums.entry(measure).or_default() += amount;
            }
            if export.figures.len() > PLACES_MAX || export.days.len() > PLACES_MAX {
                return Err(ExportError::TooMany);
            }
        }
        Ok(export)
    }
}

impl Kind {
    fn of(headers: &csv::StringRecord) -> Option<Self> {
        let has = |column: &str| headers.iter().any(|name| name.trim() == column);
        if has("usage_date_utc") && has("usage_input_tokens_no_cache") {
            Some(Self::AnthropicUsage)
        } else if has("usage_date_utc") && has("cost_usd") {
            Some(Self::AnthropicCosts)
        } else if has("start_time_iso") && has("amount_value") {
            Some(Self::OpenAiCosts)
        } else if has("start_time_iso") && has("input_tokens") {
            Some(Self::OpenAiUsage)
        } else {
            None
        }
    }

    const fn day_column(self) -> &'static str {
        match self {
            Self::OpenAiUsage | Self::OpenAiCosts => "start_time_iso",
            Self::AnthropicUsage | Self::AnthropicCosts => "usage_date_utc",
        }
    }

    /// What has a column.
    fn measures(self, has: &impl Fn(&str) -> bool) -> BTreeSet<Measure> {
        match self {
            Self::OpenAiCosts | Self::AnthropicCosts => BTreeSet::from([Measure::Cost]),
            Self::OpenAiUsage => {
                let mut measures = BTreeSet::from([Measure::Prompt, Measure::Completion]);
                if has("input_cached_tokens") {
                    measures.insert(Measure::CachedPrompt);
                }
                measures
            }
            Self::AnthropicUsage => {
                let mut measures = BTreeSet::from([
                    Measure::Prompt,
                    Measure::CachedPrompt,
                    Measure::CacheWrite5m,
                    Measure::CacheWrite1h,
                    Measure::Completion,
                ]);
                if has("web_search_count") {
                    measures.insert(Measure::Searches);
                }
                measures
            }
        }
    }

    fn model(self, row: &Row<'_>) -> String {
        let name = match self {
            Self::OpenAiUsage | Self::AnthropicCosts => row.get("model"),
            Self::AnthropicUsage => row.get("model_version"),
            // Such as "gpt-4o-2024-08-06, cached input".
            Self::OpenAiCosts => row
                .get("line_item")
                .map(|item| item.split_once(',').map_or(item, |(model, _)| model)),
        };
        name.map(family).unwrap_or_default()
    }

    fn figures(self, row: &Row<'_>) -> Result<Vec<(Measure, i128)>, ExportError> {
        Ok(match self {
            Self::OpenAiUsage => {
                let cached = row.count("input_cached_tokens")?;
                // The whole prompt, what was read from a cache included.
                let input = row.count("input_tokens")?;
                vec![
                    (Measure::Prompt, input - cached),
                    (Measure::CachedPrompt, cached),
                    (Measure::Completion, row.count("output_tokens")?),
                ]
            }
            Self::OpenAiCosts => {
                if let Some(currency) = row.get("amount_currency")
                    && !currency.eq_ignore_ascii_case("usd")
                {
                    return Err(ExportError::Currency {
                        line: row.line(),
                        currency: currency.chars().take(FRACTION_DIGITS).collect(),
                    });
                }
                vec![(Measure::Cost, row.amount("amount_value")?)]
            }
            Self::AnthropicUsage => vec![
                (Measure::Prompt, row.count("usage_input_tokens_no_cache")?),
                (
                    Measure::CachedPrompt,
                    row.count("usage_input_tokens_cache_read")?,
                ),
                (
                    Measure::CacheWrite5m,
                    row.count("usage_input_tokens_cache_write_5m")?,
                ),
                (
                    Measure::CacheWrite1h,
                    row.count("usage_input_tokens_cache_write_1h")?,
                ),
                (Measure::Completion, row.count("usage_output_tokens")?),
                (Measure::Searches, row.count("web_search_count")?),
            ],
            Self::AnthropicCosts => vec![(Measure::Cost, row.amount("cost_usd")?)],
        })
    }
}

/// Refuses lines that no export has: memory is bounded whatever the file is.
struct ShortLines<R> {
    source: R,
    length: usize,
}

impl<R: Read> Read for ShortLines<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(into)?;
        for byte in into.iter().take(read) {
            self.length = if *byte == b'\n' { 0 } else { self.length + 1 };
            if self.length > LINE_BYTES_MAX {
                return Err(io::Error::other(
                    "a line is longer than 1 MiB: this is no export",
                ));
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Export, String> {
        Export::read(text.as_bytes(), None, None).map_err(|error| error.to_string())
    }

    #[test]
    fn openais_usage_and_costs() {
        let usage = "start_time,end_time,start_time_iso,end_time_iso,project_id,num_model_requests,user_id,api_key_id,model,batch,service_tier,input_tokens,output_tokens,input_cached_tokens,input_uncached_tokens\n\
            1,2,2026-11-01T00:00:00+00:00,2026-11-02T00:00:00+00:00,p,3,,,gpt-5-mini-2025-08-07,false,,100,20,30,70\n\
            1,2,2026-11-01T00:00:00+00:00,2026-11-02T00:00:00+00:00,q,3,,,gpt-5-mini-2025-08-07,false,flex,10,2,0,10\n\
            1,2,2026-11-02T00:00:00+00:00,2026-11-03T00:00:00+00:00,,,,,,,,,,,\n";
        let export = read(usage).unwrap();
        let place = ("2026-11-01".to_owned(), "gpt-5-mini".to_owned());
        let sums = &export.figures[&place];
        assert_eq!(
            (
                sums[&Measure::Prompt],
                sums[&Measure::CachedPrompt],
                sums[&Measure::Completion]
            ),
            (80, 30, 22)
        );
        assert_eq!((export.figures.len(), export.days.len()), (1, 2));
        let costs = "start_time_iso,amount_value,amount_currency,line_item\n\
            2026-11-01T00:00:00+00:00,0.00012340000000000001,usd,\"gpt-4o-2024-08-06, input\"\n\
            2026-11-01T00:00:00+00:00,1,usd,\"gpt-4o-2024-08-06, output\"\n\
            2026-11-01T00:00:00+00:00,5e-06,usd,\"gpt-4o-2024-08-06, output\"\n\
            2026-11-01T00:00:00+00:00,-0.000005,usd,\"gpt-4o-2024-08-06, credit\"\n";
        let export = read(costs).unwrap();
        let sums = &export.figures[&("2026-11-01".to_owned(), "gpt-4o".to_owned())];
        assert_eq!(sums[&Measure::Cost], 1_000_123_400);
        assert!(export.by_model);
    }

    #[test]
    fn anthropics_usage_and_costs() {
        let usage = "usage_date_utc,model_version,api_key,workspace,usage_type,context_window,usage_input_tokens_no_cache,usage_input_tokens_cache_write_5m,usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,usage_output_tokens,web_search_count,inference_geo,speed\n\
            2026-08-05,claude-opus-5,k,Default,standard,≤ 200k,1,2,3,4,5,6,,\n";
        let export = read(usage).unwrap();
        let sums = &export.figures[&("2026-08-05".to_owned(), "claude-opus-5".to_owned())];
        let amounts: Vec<i128> = sums.values().copied().collect();
        assert_eq!(amounts, [1, 4, 2, 3, 5, 6]);
        assert!(export.writes_apart);
        let costs = "usage_date_utc,model,workspace,api_key,usage_type,context_window,token_type,cost_usd,list_price_usd,cost_type\n\
            2026-08-04,Claude Haiku 4.5,Default,k,message,≤ 200k,input_no_cache,0.05,0.05,token\n";
        let export = read(costs).unwrap();
        let sums = &export.figures[&("2026-08-04".to_owned(), "claude-haiku-4-5".to_owned())];
        assert_eq!(sums[&Measure::Cost], 50_000_000);
    }

    #[test]
    fn days_outside_are_left_out() {
        let text = "start_time_iso,model,input_tokens,output_tokens\n\
            2026-11-01,a,1,1\n2026-11-02,a,1,1\n2026-11-03,a,1,1\n";
        let export = Export::read(text.as_bytes(), Some("2026-11-02"), Some("2026-11-03")).unwrap();
        assert_eq!(export.days.into_iter().collect::<Vec<_>>(), ["2026-11-02"]);
    }

    #[test]
    fn what_is_no_export_is_refused() {
        let usage = "start_time_iso,model,input_tokens,output_tokens\n";
        for (text, part) in [
            ("a,b\n1,2\n".to_owned(), "columns"),
            (
                format!("{usage}2026-13-01,m,1,1\n"),
                "line 2: start_time_iso",
            ),
            (format!("{usage}2026-11-01,m,-1,1\n"), "is no count"),
            (
                "start_time_iso,amount_value,amount_currency\n2026-11-01,1,eur\n".to_owned(),
                "eur",
            ),
            (
                "start_time_iso,amount_value\n2026-11-01,1e-5x\n".to_owned(),
                "no amount",
            ),
            (
                format!("{usage}2026-11-01,{},1,1\n", "m".repeat(LINE_BYTES_MAX)),
                "longer than 1 MiB",
            ),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
