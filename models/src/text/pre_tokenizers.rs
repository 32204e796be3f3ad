//! Pre-tokenizers: the stages that cut a text into the words that BPE sees one by one.
//!
//! Each stage cuts every piece of the stage before. The rules and their names are those of the `pre_tokenizer` of a
//! `tokenizer.json`; the kinds of GGUF ([`super::pre_split`]) are lists of the same stages.

use super::error::Result;
use super::pattern::Pattern;

/// What becomes of the matches of a [`Stage::Split`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behavior {
    /// Each match is a piece.
    Isolated,
    Removed,
    /// A match belongs to the piece before it, unless that is a match too.
    MergedWithPrevious,
    /// A match belongs to the piece behind it, unless that is a match too.
    MergedWithNext,
    /// Neighbouring matches are one piece.
    Contiguous,
}

/// The pieces that [`Stage::Metaspace`] puts its sign in front of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prepend {
    Always,
    /// The one at the start of the text.
    First,
    Never,
}

/// One step.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Cuts at the matches of a pattern; with `invert` at what lies between them.
    Split { pattern: Pattern, behavior: Behavior, invert: bool },
    /// Puts a space in front of each piece that has none.
    PrefixSpace,
    /// Writes spaces as `replacement`, puts one in front, and cuts before each of them if `split`.
    Metaspace { replacement: char, prepend: Prepend, split: bool },
}

/// A part of the text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'t> {
    pub(crate) text: &'t str,
    /// The bytes at its start that stand for the first character of the whole text; 0 for a piece from elsewhere.
    pub(crate) head: usize,
}

impl<'t> Piece<'t> {
    /// The bytes `start..end` of the piece.
    pub(crate) fn part(&self, start: usize, end: usize) -> Piece<'t> {
        Piece { text: &self.text[start..end], head: self.head.min(end).saturating_sub(start) }
    }
}

/// Receives the pieces of a stage.
type Emit<'e> = dyn FnMut(Piece<'_>) -> Result<()> + 'e;

impl Stage {
    /// The stage whose pieces are the matches of `pattern` and what lies between them.
    pub(crate) fn isolating(pattern: Pattern) -> Self {
        Stage::Split { pattern, behavior: Behavior::Isolated, invert: false }
    }

    fn run(&self, piece: Piece<'_>, emit: &mut Emit<'_>) -> Result<()> {
        match self {
            Stage::Split { pattern, behavior, invert } => split(piece, pattern, *behavior, *invert, emit),
            Stage::PrefixSpace if piece.text.starts_with(' ') => emit(piece),
            Stage::PrefixSpace => {
                let head = if piece.head > 0 { piece.head + 1 } else { 0 };
                emit(Piece { text: &format!(" {}", piece.text), head })
            }
            Stage::Metaspace { replacement, prepend, split } => metaspace(piece, *replacement, *prepend, *split, emit),
        }
    }
}

fn split(piece: Piece<'_>, pattern: &Pattern, behavior: Behavior, invert: bool, emit: &mut Emit<'_>) -> Result<()> {
    let mut joined = Joined { piece, behavior, open: None, last_matched: false, emit };
    let mut at = 0;
    pattern.matches(piece.text, &mut |start, end| {
        if at < start {
            joined.add(at, start, invert)?;
        }
        at = end;
        joined.add(start, end, !invert)
    })?;
    if at < piece.text.len() {
        joined.add(at, piece.text.len(), invert)?;
    }
    joined.flush()
}

/// Joins matches and what lies between them by a [`Behavior`].
struct Joined<'t, 'e, 'f> {
    piece: Piece<'t>,
    behavior: Behavior,
    /// Start and end of a piece that may still grow.
    open: Option<(usize, usize)>,
    last_matched: bool,
    emit: &'e mut Emit<'f>,
}

impl Joined<'_, '_, '_> {
    fn add(&mut self, start: usize, end: usize, matched: bool) -> Result<()> {
        let last_matched = std::mem::replace(&mut self.last_matched, matched);
        let joins = match self.behavior {
            Behavior::Removed if matched => return Ok(()),
            Behavior::Isolated | Behavior::Removed => return (self.emit)(self.piece.part(start, end)),
            Behavior::Contiguous => matched == last_matched,
            Behavior::MergedWithPrevious => matched && !last_matched,
            Behavior::MergedWithNext => !matched && last_matched,
        };
        match &mut self.open {
            Some(open) if joins => open.1 = end,
            _ => {
                self.flush()?;
                self.open = Some((start, end));
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        match self.open.take() {
            Some((start, end)) => (self.emit)(self.piece.part(start, end)),
            None => Ok(()),
        }
    }
}

fn metaspace(piece: Piece<'_>, sign: char, prepend: Prepend, split: bool, emit: &mut Emit<'_>) -> Result<()> {
    let mut text = String::with_capacity(piece.text.len() + sign.len_utf8());
    let starts = piece.text.starts_with([' ', sign]);
    let prepended = !starts && (prepend == Prepend::Always || prepend == Prepend::First && piece.head > 0);
    let mut head = 0;
    if prepended {
        text.push(sign);
    }
    for (at, c) in piece.text.char_indices() {
        text.push(if c == ' ' { sign } else { c });
        if at < piece.head {
            head = text.len();
        }
    }
    let piece = Piece { text: &text, head };
    if !split {
        return emit(piece);
    }
    let mut start = 0;
    for (at, _) in text.match_indices(sign).filter(|&(at, _)| at > 0) {
        emit(piece.part(start, at))?;
        start = at;
    }
    emit(piece.part(start, text.len()))
}

/// All stages of a tokenizer.
#[derive(Debug, Default)]
pub(crate) struct PreSplit {
    pub(crate) stages: Vec<Stage>,
}

impl PreSplit {
    /// Calls `word` with each word of `piece` in order, none of them empty.
    ///
    /// # Errors
    /// Those of a pattern's search and of `word`.
    pub(crate) fn words(&self, piece: Piece<'_>, word: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
        run(&self.stages, piece, word)
    }
}

fn run(stages: &[Stage], piece: Piece<'_>, word: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
    match stages {
        _ if piece.text.is_empty() => Ok(()),
        [] => word(piece.text),
        [stage, rest @ ..] => stage.run(piece, &mut |piece| run(rest, piece, word)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(stages: Vec<Stage>, text: &str) -> Vec<String> {
        let head = text.chars().next().map_or(0, char::len_utf8);
        let mut out = Vec::new();
        PreSplit { stages }
            .words(Piece { text, head }, &mut |word| {
                out.push(word.to_owned());
                Ok(())
            })
            .unwrap();
        out
    }

    #[test]
    fn every_behavior() {
        use Behavior::*;
        for (behavior, invert, expected) in [
            (Isolated, false, &["a", "-", "-", "b", "-", "c", "-"][..]),
            (Removed, false, &["a", "b", "c"]),
            (Removed, true, &["-", "-", "-", "-"]),
            (MergedWithPrevious, false, &["a-", "-", "b-", "c-"]),
            (MergedWithNext, false, &["a", "-", "-b", "-c", "-"]),
            (MergedWithNext, true, &["a-", "-", "b-", "c-"]),
            (Contiguous, false, &["a", "--", "b", "-", "c", "-"]),
            (Contiguous, true, &["a", "--", "b", "-", "c", "-"]),
        ] {
            let pattern = Pattern::literal("test", "-").unwrap();
            let found = words(vec![Stage::Split { pattern, behavior, invert }], "a--b-c-");
            assert_eq!(found, expected, "{behavior:?} {invert}");
        }
    }

    #[test]
    fn metaspace_marks_the_start_of_the_text_or_of_each_piece() {
        let meta = |prepend, split| Stage::Metaspace { replacement: '▁', prepend, split };
        let dashes = || Stage::isolating(Pattern::literal("test", "-").unwrap());
        assert_eq!(words(vec![meta(Prepend::Always, true)], "a b  c"), ["▁a", "▁b", "▁", "▁c"]);
        assert_eq!(words(vec![meta(Prepend::First, false)], "a b"), ["▁a▁b"]);
        assert_eq!(words(vec![meta(Prepend::Never, true)], "a ▁b"), ["a", "▁", "▁b"]);
        assert_eq!(words(vec![dashes(), meta(Prepend::First, true)], "a-b"), ["▁a", "-", "b"]);
        assert_eq!(words(vec![dashes(), Stage::PrefixSpace], "a-b"), [" a", " -", " b"]);
    }
}
