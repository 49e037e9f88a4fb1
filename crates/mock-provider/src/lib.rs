//! A scripted provider over real HTTP: words with usage, pauses, cuts, garbage, wrong usage; also the demo provider of a first run.
