//! Times in Ollama's form.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::{
    http::times::{Durations, Times},
    scheduler::Usage,
};

/// The time of now, as RFC 3339 has it.
pub(super) fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    rfc3339(since.as_secs(), since.subsec_nanos())
}

/// A time in seconds since the epoch, and nanoseconds. The date is found by Howard Hinnant's `civil_from_days`: years begin in
/// March, so that the day that some have more is their last.
pub(super) fn rfc3339(seconds: u64, nanos: u32) -> String {
    let (days, of_day) = (seconds / 86400 + 719_468, seconds % 86400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// Counts and times of an answer that has ended. What the request waited for others counts as loading.
pub(super) fn json(times: &Times, usage: Usage) -> Value {
    let Durations { total, waited, prompt, answer } = times.end();
    json!({
        "total_duration": nanos(total),
        "load_duration": nanos(waited),
        "prompt_eval_count": usage.prompt_tokens,
        "prompt_eval_duration": nanos(prompt),
        "eval_count": usage.completion_tokens,
        "eval_duration": nanos(answer),
    })
}

/// Nanoseconds, as all durations here.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (1_735_689_599, "2024-12-31T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(rfc3339(seconds, 5), format!("{expected}.000000005Z"));
        }
    }
}
