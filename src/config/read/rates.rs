//! The section `[rate_limits]`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::{
    RateLimits,
    problem::nearest,
    rates::{Kind, Rate},
    source::Source,
};

/// As much as no limit at all.
const MOST: f64 = 1_000_000.0;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    per_second: f64,
    burst: f64,
}

pub(super) fn read(source: &mut Source) -> RateLimits {
    let enabled = source.flag("rate_limits.enabled", true);
    let key = "rate_limits.rates";
    let mut rates = BTreeMap::new();
    let given = source.json(key).unwrap_or_default();
    for (name, value) in given.as_object().into_iter().flatten() {
        let key = format!("{key}.{name}");
        let Some(kind) = Kind::of(name) else {
            let hint = nearest(name, Kind::names());
            let hint = hint.map_or_else(String::new, |known| format!("; did you mean {known}?"));
            source.problem(&key, None, format!("is nothing that is limited{hint}"));
            continue;
        };
        let entry = serde_json::from_value::<Entry>(value.clone()).ok();
        let is_rate = |number: f64, least: f64| number >= least && number <= MOST;
        match entry {
            Some(Entry { per_second, burst })
                if per_second > 0.0 && is_rate(per_second, 0.0) && is_rate(burst, 1.0) =>
            {
                rates.insert(kind, Rate { per_second, burst });
            }
            Some(_) | None => {
                let remedy = "is no rate; write it as { per_second = 0.5, burst = 20 }, with a \
                              number above 0 and one of at least 1";
                source.problem(&key, Some(value.to_string()), remedy);
            }
        }
    }
    RateLimits { enabled, rates }
}
