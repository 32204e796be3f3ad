//! The date and time that templates print.

use std::str::FromStr;

use super::super::error::TextError;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// A date and time of the civil calendar, without a time zone: for `strftime_now` of templates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    year: u16,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
}

impl LocalTime {
    /// The time of that date: month and day from 1, hour from 0 to 23, second to 60. `None` where the calendar or the
    /// clock has no such time, or the year more than four digits.
    pub fn new(year: u16, month: u8, day: u8, hour: u8, minute: u8, second: u8) -> Option<Self> {
        let time = Self { year, month, day, hour, minute, second };
        let exists = year <= 9999
            && (1..=12).contains(&month)
            && (1..=time.days_of_month()).contains(&day)
            && hour < 24
            && minute < 60
            && second <= 60;
        exists.then_some(time)
    }

    fn leap(self) -> bool {
        self.year.is_multiple_of(4) && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400))
    }

    fn days_of_month(self) -> u8 {
        match self.month {
            2 => 28 + u8::from(self.leap()),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    /// The day of the year, from 1.
    fn day_of_year(self) -> u16 {
        let before = (1..self.month).map(|month| u16::from(Self { month, ..self }.days_of_month())).sum::<u16>();
        before + u16::from(self.day)
    }

    /// The day of the week, Sunday 0 (Sakamoto's method).
    fn weekday(self) -> usize {
        const SHIFT: [u16; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        // 400 years are whole weeks; they keep the sum positive.
        let year = self.year + 400 - u16::from(self.month < 3);
        let shift = SHIFT.get(usize::from(self.month) - 1).copied().unwrap_or_default();
        usize::from((year + year / 4 - year / 100 + year / 400 + shift + u16::from(self.day)) % 7)
    }

    /// The time in the form that `format` gives, as Python's `strftime` in the C locale. `%z` and `%Z` are empty; other
    /// unknown codes stay as they are.
    pub(super) fn format(self, format: &str) -> String {
        let month = MONTHS.get(usize::from(self.month) - 1).copied().unwrap_or_default();
        let day = DAYS[self.weekday()];
        let hour12 = (self.hour + 11) % 12 + 1;
        let mut out = String::with_capacity(format.len() + 16);
        let mut chars = format.chars().peekable();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let bare = chars.next_if_eq(&'-').is_some();
            let two = |n: u8| if bare { n.to_string() } else { format!("{n:02}") };
            match chars.next() {
                Some('Y') => out.push_str(&self.year.to_string()),
                Some('y') => out.push_str(&two((self.year % 100) as u8)),
                Some('m') => out.push_str(&two(self.month)),
                Some('d') => out.push_str(&two(self.day)),
                Some('e') => out.push_str(&format!("{:>2}", self.day)),
                Some('B') => out.push_str(month),
                Some('b' | 'h') => out.push_str(&month[..3]),
                Some('A') => out.push_str(day),
                Some('a') => out.push_str(&day[..3]),
                Some('w') => out.push_str(&self.weekday().to_string()),
                Some('j') if bare => out.push_str(&self.day_of_year().to_string()),
                Some('j') => out.push_str(&format!("{:03}", self.day_of_year())),
                Some('H') => out.push_str(&two(self.hour)),
                Some('I') => out.push_str(&two(hour12)),
                Some('M') => out.push_str(&two(self.minute)),
                Some('S') => out.push_str(&two(self.second)),
                Some('f') => out.push_str("000000"),
                Some('p') => out.push_str(if self.hour < 12 { "AM" } else { "PM" }),
                Some('F') => out.push_str(&self.format("%Y-%m-%d")),
                Some('T' | 'X') => out.push_str(&self.format("%H:%M:%S")),
                Some('R') => out.push_str(&self.format("%H:%M")),
                Some('D' | 'x') => out.push_str(&self.format("%m/%d/%y")),
                Some('c') => out.push_str(&self.format("%a %b %e %H:%M:%S %Y")),
                Some('z' | 'Z') => {}
                Some('%') => out.push('%'),
                other => {
                    out.push_str(if bare { "%-" } else { "%" });
                    out.extend(other);
                }
            }
        }
        out
    }
}

impl FromStr for LocalTime {
    type Err = TextError;

    /// Reads `2025-06-17T09:30:00`; the seconds may be missing, and a space may stand for the `T`.
    fn from_str(text: &str) -> Result<Self, TextError> {
        let read = || {
            let (date, time) = text.split_once(['T', ' '])?;
            let mut date = date.split('-');
            let mut time = time.split(':');
            let year = digits(date.next()?, 4)?;
            let two = |text: Option<&str>| digits(text?, 2).and_then(|n| u8::try_from(n).ok());
            let (month, day) = (two(date.next())?, two(date.next())?);
            let (hour, minute) = (two(time.next())?, two(time.next())?);
            let second = match time.next() {
                None => 0,
                second => two(second)?,
            };
            let whole = date.next().is_none() && time.next().is_none();
            Self::new(year, month, day, hour, minute, second).filter(|_| whole)
        };
        read().ok_or_else(|| TextError::broken(format!("`{text}`"), "no date and time; write 2025-06-17T09:30:00"))
    }
}

/// A number of exactly `n` digits.
fn digits(text: &str, n: usize) -> Option<u16> {
    let all = text.len() == n && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_python_writes_them() {
        // `datetime.datetime(…).strftime(…)` of CPython 3.13.
        for (time, format, text) in [
            ("2025-06-17T09:30:05", "%Y-%m-%d %H:%M:%S", "2025-06-17 09:30:05"),
            ("2025-06-07T21:30:05", "%d %b %Y, %B %A %a", "07 Jun 2025, June Saturday Sat"),
            ("2025-06-07T21:30:05", "%-d %e %I:%M %p %y %j %%", "7  7 09:30 PM 25 158 %"),
            ("2024-12-31T00:00", "%j %F %T %D %R %w", "366 2024-12-31 00:00:00 12/31/24 00:00 2"),
            ("2000-02-29 12:00:00", "%A %I%p %c", "Tuesday 12PM Tue Feb 29 12:00:00 2000"),
            ("1999-01-01T00:00:00", "%A%z%Z %Q %", "Friday %Q %"),
        ] {
            assert_eq!(time.parse::<LocalTime>().unwrap().format(format), text, "{time} {format}");
        }
    }

    #[test]
    fn times_that_are_none_are_refused() {
        for text in [
            "",
            "2025-06-17",
            "2025-02-29T00:00",
            "2025-6-17T09:30",
            "2025-06-17T24:00",
            "2025-06-17T09:30:00Z",
            "2025-13-01T00:00",
            "+025-01-01T00:00",
            "2025-01-01-01T00:00",
            "1900-02-29T00:00",
            "2025-00-10T00:00",
        ] {
            let error = text.parse::<LocalTime>().unwrap_err().to_string();
            assert!(error.contains("no date and time"), "{text}: {error}");
        }
    }
}
