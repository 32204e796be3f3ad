//! Stop strings: an answer ends where one of them appears, even when it is spread over several tokens.

/// Holds back text that may turn out to be the start of a stop string.
///
/// Feed it the text of a [`StreamDecoder`](super::StreamDecoder), cut into calls in any way. The stop string that is
/// complete first counts; of those that end at the same place, the longest.
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    /// Text not yet given out: between calls, the start of some stop string.
    held: String,
    found: Option<usize>,
}

impl StopStrings {
    /// Empty strings are left out: they would end every answer before it starts.
    pub fn new(stops: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let stops = stops.into_iter().map(Into::into).filter(|s: &String| !s.is_empty()).collect();
        Self { stops, held: String::new(), found: None }
    }

    /// Takes the next text, appends the text that is safe to show to `out`, and returns whether a stop string is
    /// complete. The stop string itself and the text after it are never given out, and nothing is after a stop.
    pub fn push(&mut self, text: &str, out: &mut String) -> bool {
        if self.found.is_some() {
            return true;
        }
        if self.stops.is_empty() {
            out.push_str(text);
            return false;
        }
        self.held.push_str(text);
        let matches = self.stops.iter().enumerate().filter_map(|(i, s)| self.held.find(s.as_str()).map(|at| (at, i)));
        let first = matches.min_by_key(|&(at, i)| (at + self.stops[i].len(), at));
        if let Some((at, stop)) = first {
            out.push_str(&self.held[..at]);
            self.held.clear();
            self.found = Some(stop);
            return true;
        }
        let safe = self.safe_len();
        out.push_str(&self.held[..safe]);
        self.held.drain(..safe);
        false
    }

    /// Bytes of `held` before the longest end of it that starts a stop string.
    fn safe_len(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let first = self.held.len().saturating_sub(longest - 1);
        let starts = (first..self.held.len()).filter(|&at| self.held.is_char_boundary(at));
        let mut open = starts.filter(|&at| self.stops.iter().any(|s| s.starts_with(&self.held[at..])));
        open.next().unwrap_or(self.held.len())
    }

    /// Ends the text: gives out what was held back, nothing after a stop.
    pub fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
    }

    /// The stop string that was found.
    pub fn found(&self) -> Option<&str> {
        self.found.map(|i| self.stops[i].as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(stops: &[&str], chunks: &[&str]) -> (String, Option<String>) {
        let mut stop = StopStrings::new(stops.iter().copied());
        let mut out = String::new();
        for chunk in chunks {
            if stop.push(chunk, &mut out) {
                break;
            }
        }
        stop.finish(&mut out);
        (out, stop.found().map(str::to_owned))
    }

    #[test]
    fn stops_across_chunks() {
        let found = |text: &str, stop: &str| (text.to_owned(), Some(stop.to_owned()));
        assert_eq!(run(&["</s>"], &["a<", "/", "s", ">b"]), found("a", "</s>"));
        assert_eq!(run(&["User:"], &["hi\nUs", "er", ": x"]), found("hi\n", "User:"));
        assert_eq!(run(&["aab"], &["aa", "a", "b"]), found("a", "aab"));
        assert_eq!(run(&["\n\n"], &["x\n", "\ny"]), found("x", "\n\n"));
        assert_eq!(run(&["ü"], &["für"]), found("f", "ü"));
        assert_eq!(run(&["bc", "abc"], &["xabc"]), found("x", "abc"), "the longest of those that end together");
        assert_eq!(run(&["abcd", "b"], &["abcd"]), found("a", "b"), "the first to be complete");
    }

    #[test]
    fn what_only_looks_like_a_stop_comes_out() {
        assert_eq!(run(&["</s>"], &["a</", "b>", "</s"]), ("a</b></s".to_owned(), None));
        assert_eq!(run(&[""], &["abc"]), ("abc".to_owned(), None));
        assert_eq!(run(&[], &["abc"]), ("abc".to_owned(), None));
    }

    #[test]
    fn nothing_is_held_without_need() {
        let mut stop = StopStrings::new(["</s>"]);
        let mut out = String::new();
        assert!(!stop.push("hello", &mut out));
        assert_eq!(out, "hello");
        assert!(!stop.push(" <", &mut out));
        assert_eq!(out, "hello ");
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(text in "[abü]{0,24}", stops in proptest::collection::vec("[abü]{1,4}", 1..4)) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let chars: Vec<String> = text.chars().map(String::from).collect();
            let chars: Vec<&str> = chars.iter().map(String::as_str).collect();
            let (out, found) = run(&stops, &[&text]);
            prop_assert_eq!(&run(&stops, &chars), &(out.clone(), found.clone()));
            match found {
                None => prop_assert_eq!(&out, &text),
                Some(stop) => prop_assert!(text.starts_with(&(out.clone() + &stop))),
            }
            prop_assert!(!stops.iter().any(|s| out.contains(s)));
        }
    }
}
