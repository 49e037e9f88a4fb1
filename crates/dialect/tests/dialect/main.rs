//! The public API of `dialect`, on bytes as providers and clients send them.

#[cfg(test)]
mod anthropic_requests;
#[cfg(test)]
mod anthropic_streams;
#[cfg(test)]
mod bedrock;
#[cfg(test)]
mod cohere;
#[cfg(test)]
mod counted;
#[cfg(test)]
mod cutting;
#[cfg(test)]
mod encoding;
#[cfg(test)]
mod every_recording;
#[cfg(test)]
mod framing;
#[cfg(test)]
mod gemini_requests;
#[cfg(test)]
mod gemini_streams;
#[cfg(test)]
mod goldens;
#[cfg(test)]
mod oddities;
#[cfg(test)]
mod ollama;
#[cfg(test)]
mod played;
#[cfg(test)]
mod recordings;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod sums;
#[cfg(test)]
mod usage;
