//! What a model has used: requests, tokens and, where prices are known, money.

use std::{
    ops::Add,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use serde::{Deserialize, Serialize};

use super::Usage;

/// Running totals of one process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Requests that were sent, those that failed and those sent again among them.
    pub requests: u64,
    /// Requests that were sent again after a failure that may pass.
    pub retries: u64,
    /// Prompts that were answered without a request.
    pub cache_hits: u64,
    /// Tokens read, as the server counts them.
    pub prompt_tokens: u64,
    /// Tokens written, as the server counts them.
    pub completion_tokens: u64,
    /// What the tokens cost in the currency of the prices; none where there are no prices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
}

impl Add for Totals {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            retries: self.retries + other.retries,
            cache_hits: self.cache_hits + other.cache_hits,
            prompt_tokens: self.prompt_tokens + other.prompt_tokens,
            completion_tokens: self.completion_tokens + other.completion_tokens,
            cost: match (self.cost, other.cost) {
                (Some(a), Some(b)) => Some(a + b),
                (one, other) => one.or(other),
            },
        }
    }
}

/// Prices per million tokens, in any one currency.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Price {
    /// Of tokens read.
    pub input: f64,
    /// Of tokens written.
    pub output: f64,
}

/// Counts as completions come in, from any number of tasks.
#[derive(Debug, Default)]
pub struct Meter {
    requests: AtomicU64,
    retries: AtomicU64,
    cache_hits: AtomicU64,
    prompt_tokens: AtomicU64,
    completion_tokens: AtomicU64,
}

impl Meter {
    /// A request goes out.
    pub fn request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// The next request repeats one that failed.
    pub fn retry(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    /// A prompt was answered without a request.
    pub fn cache_hit(&self) {
        self.cache_hits.fetch_add(1, Relaxed);
    }

    /// A completion came in.
    pub fn used(&self, usage: Usage) {
        self.prompt_tokens.fetch_add(usage.prompt_tokens, Relaxed);
        self.completion_tokens.fetch_add(usage.completion_tokens, Relaxed);
    }

    /// The totals now.
    pub fn totals(&self, price: Option<Price>) -> Totals {
        let (read, written) = (self.prompt_tokens.load(Relaxed), self.completion_tokens.load(Relaxed));
        Totals {
            requests: self.requests.load(Relaxed),
            retries: self.retries.load(Relaxed),
            cache_hits: self.cache_hits.load(Relaxed),
            prompt_tokens: read,
            completion_tokens: written,
            cost: price.map(|price| (read as f64 * price.input + written as f64 * price.output) / 1e6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_cost_their_price_per_million() {
        let meter = Meter::default();
        meter.used(Usage { prompt_tokens: 1_500_000, completion_tokens: 250_000 });
        meter.request();
        assert_eq!(meter.totals(None).cost, None);
        let totals = meter.totals(Some(Price { input: 0.5, output: 4.0 }));
        assert_eq!(totals.cost, Some(1.75));
        let both = totals + Totals { cache_hits: 2, ..Totals::default() };
        assert_eq!((both.cost, both.requests, both.cache_hits), (Some(1.75), 1, 2));
    }

    #[test]
    fn totals_survive_json() {
        let totals = Totals { requests: 3, cost: Some(0.25), ..Totals::default() };
        let text = serde_json::to_string(&totals).unwrap();
        assert_eq!(serde_json::from_str::<Totals>(&text).unwrap(), totals);
    }
}
