//! Spans, times and amounts in words, the same in the agent's sentences and in the client's tables.

use std::time::Duration;

use jiff::{Timestamp, Zoned, tz::TimeZone};

/// Nobody on this host asks our resolver.
pub const NAMES_NOT_RESOLVING: &str = "names do not resolve here yet";

/// The two ways out of that (transcripts.md).
pub const NAMES_WAYS_OUT: &str = "sudo apt install systemd-resolved (it takes over /etc/resolv.conf), or: sudo webmesh dns takeover";

/// A span as `12 s`, `3 min`, `5 h` or `3 days`.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A span before now: `3 min ago`.
pub fn ago(seconds: u64) -> String {
    format!("{} ago", span(seconds))
}

/// A time near `now`, both unix s, on this machine's wall clock: `15:42`, or with its date if that is another day.
pub fn clock(at: u64, now: u64) -> String {
    let (at, now) = (local(at), local(now));
    if at.date() == now.date() {
        at.strftime("%H:%M").to_string()
    } else {
        at.strftime("%Y-%m-%d %H:%M").to_string()
    }
}

/// The same to the second: `15:42:07`.
pub fn clock_s(at: u64, now: u64) -> String {
    let (at, now) = (local(at), local(now));
    if at.date() == now.date() {
        at.strftime("%H:%M:%S").to_string()
    } else {
        at.strftime("%Y-%m-%d %H:%M:%S").to_string()
    }
}

/// The last time before `now`, unix s, at which this machine's wall clock showed this time of day.
pub fn last_at(hour: i8, minute: i8, second: i8, now: u64) -> Option<u64> {
    let today = local(now);
    let on = |day: Zoned| {
        let time = jiff::civil::time(hour, minute, second, 0);
        let at = day.date().to_datetime(time).to_zoned(TimeZone::system());
        u64::try_from(at.ok()?.timestamp().as_second()).ok()
    };
    let yesterday = today.yesterday().ok()?;
    on(today).filter(|at| *at <= now).or_else(|| on(yesterday))
}

/// The day of a time, unix s: `2027-02-20`.
pub fn date(at: u64) -> String {
    local(at).strftime("%Y-%m-%d").to_string()
}

/// A time, unix s, as a part of a file's name: `20261122-154200`.
pub fn stamp(at: u64) -> String {
    local(at).strftime("%Y%m%d-%H%M%S").to_string()
}

/// An amount of bytes with two figures or more: `812 B`, `8.1 MB`, `22 MB`.
pub fn bytes(amount: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut unit = 0;
    let mut tenths = u128::from(amount) * 10;
    while tenths >= 9_995 && unit + 1 < UNITS.len() {
        tenths = (tenths + 500) / 1000;
        unit += 1;
    }
    let unit_name = UNITS[unit];
    if unit == 0 || tenths >= 100 {
        format!("{} {unit_name}", (tenths + 5) / 10)
    } else {
        format!("{}.{} {unit_name}", tenths / 10, tenths % 10)
    }
}

/// A round trip: `34 ms`, `0.3 ms`.
pub fn milliseconds(ms: f64) -> String {
    if ms < 9.95 {
        format!("{ms:.1} ms")
    } else {
        format!("{ms:.0} ms")
    }
}

/// A span as a number of milliseconds with three decimals: more is noise of the arithmetic.
pub fn as_milliseconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}

/// How long something took: `0.4 s`, `41 ms` when under a tenth of a second.
pub fn took(ms: u64) -> String {
    if ms < 100 {
        format!("{ms} ms")
    } else {
        format!("{}.{} s", ms / 1000, ms % 1000 / 100)
    }
}

/// `1 peer`, `2 peers`.
pub fn count(amount: u64, noun: &str) -> String {
    match amount {
        1 => format!("1 {noun}"),
        _ => format!("{amount} {noun}s"),
    }
}

fn local(unix_s: u64) -> Zoned {
    let second = i64::try_from(unix_s).unwrap_or(i64::MAX);
    Timestamp::from_second(second)
        .unwrap_or(Timestamp::MAX)
        .to_zoned(TimeZone::system())
}

/// Links without a carrier, as the reason why nothing leaves this machine.
pub fn no_carrier(links: &[String]) -> String {
    let (names, have) = (
        links.join(" and "),
        if links.len() == 1 { "has" } else { "have" },
    );
    format!("{names} {have} no carrier: plug the cable in, or switch the radio on")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_change_their_unit_where_the_smaller_one_stops_helping() {
        let spans = [
            (0, "0 s"),
            (119, "119 s"),
            (180, "3 min"),
            (7200, "2 h"),
            (259_200, "3 days"),
        ];
        for (seconds, words) in spans {
            assert_eq!(span(seconds), words);
        }
        assert_eq!(ago(180), "3 min ago");
    }

    #[test]
    fn amounts_have_two_figures_or_more() {
        let amounts = [
            (0, "0 B"),
            (812, "812 B"),
            (1_200, "1.2 kB"),
            (8_100_000, "8.1 MB"),
            (22_000_000, "22 MB"),
            (3_000_000_000, "3.0 GB"),
            (u64::MAX, "18 EB"),
        ];
        for (amount, words) in amounts {
            assert_eq!(bytes(amount), words);
        }
    }

    #[test]
    fn no_amount_is_written_with_four_figures() {
        for amount in [
            999, 1_000, 9_949, 9_950, 9_999, 99_999, 999_499, 999_500, 999_999, 1_000_000,
        ] {
            let text = bytes(amount);
            let figures = text.chars().filter(char::is_ascii_digit).count();
            assert!(figures <= 3, "{amount} became {text}");
        }
    }

    #[test]
    fn round_trips_show_tenths_only_when_short() {
        assert_eq!(milliseconds(0.34), "0.3 ms");
        assert_eq!(milliseconds(9.96), "10 ms");
        assert_eq!(milliseconds(34.2), "34 ms");
        assert_eq!(took(41), "41 ms");
        assert_eq!(took(6_100), "6.1 s");
    }

    #[test]
    fn milliseconds_have_no_noise_behind_them() {
        for (micros, text) in [
            (420, "0.42"),
            (0, "0"),
            (34_007, "34.007"),
            (1_000_000, "1000"),
        ] {
            assert_eq!(
                as_milliseconds(Duration::from_micros(micros)).to_string(),
                text
            );
        }
        assert_eq!(
            as_milliseconds(Duration::from_nanos(420_499)).to_string(),
            "0.42"
        );
    }

    #[test]
    fn a_time_of_another_day_carries_its_date() {
        let noon = 1_795_000_000;
        assert_eq!(clock(noon, noon).len(), 5);
        assert_eq!(clock(noon + 3 * 86_400, noon).len(), 16);
        assert_eq!(date(0).len(), 10);
        assert_eq!(stamp(noon).len(), 15);
    }

    #[test]
    fn a_time_of_day_is_the_last_one_that_was() {
        let noon = 1_795_000_000;
        let minute_ago = local(noon - 60);
        let (hour, minute) = (minute_ago.hour(), minute_ago.minute());
        let second = minute_ago.second();
        assert_eq!(last_at(hour, minute, second, noon), Some(noon - 60));
        assert_eq!(
            last_at(hour, minute, second, noon - 61),
            Some(noon - 60 - 86_400)
        );
        assert_eq!(clock_s(noon, noon).len(), 8);
        assert_eq!(clock_s(noon + 3 * 86_400, noon).len(), 19);
    }

    #[test]
    fn absurd_times_are_written_not_panicked_over() {
        assert!(!clock(u64::MAX, 0).is_empty());
    }
}
