//! The added tokens of a `tokenizer.json` and of the files beside it.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::super::added::{Added, MAX_IDS, SideFiles};
use super::super::error::Result;
use super::super::normalize::{Normalizer, normalize};
use super::super::special::{Place, Special};
use super::super::vocab::TokenKind;
use super::file::Listed;
use super::model::Names;

/// Most free ids between those of a `tokenizer.json` and an id that a file beside it names.
const MAX_GAP: usize = 1 << 16;

/// An added token.
#[derive(Clone, Debug)]
pub(super) struct AddedToken {
    pub(super) text: String,
    pub(super) special: bool,
    /// It is looked for in the normalized text, in its own normalized form.
    normalized: bool,
    place: Place,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct AddedTokens {
    by_id: BTreeMap<u32, AddedToken>,
    by_text: HashMap<String, u32>,
    /// Ids in the order of the file: of two tokens that read the same once normalized, the first counts.
    order: Vec<u32>,
    /// Texts of tokens that the file lists as `normalized` and that are not yet among these.
    normalized: HashSet<String>,
}

impl AddedTokens {
    /// The tokens that the file lists, and those of the files beside it, whose warnings go to `files`.
    ///
    /// The library gives no heed to the ids that the file lists, and counts on from the vocabulary. They are
    /// followed here, and weighed like those of another file where the two differ.
    pub(super) fn new(what: &str, listed: Vec<Listed>, names: &Names, files: &mut SideFiles) -> Self {
        let mut tokens = Self::default();
        let mut next = names.count;
        let mut others = Vec::new();
        for Listed { id, content: text, single_word, lstrip, rstrip, normalized, special } in listed {
            if text.is_empty() {
                continue;
            }
            let place = Place { lstrip, rstrip, single_word };
            let known = tokens.id(names, &text);
            let free = names.text(id).is_none_or(|name| name == text) && tokens.get(id).is_none_or(|t| t.text == text);
            if known.unwrap_or(next as u32) == id && free && (id as usize) < MAX_IDS {
                next += usize::from(known.is_none());
                tokens.insert(id, AddedToken { text, special, normalized, place });
            } else {
                if normalized {
                    tokens.normalized.insert(text.clone());
                }
                others.push(Added { text, id: Some(id), special: Some(special), place });
            }
        }
        files.add_all(others.into_iter(), what);
        tokens.add_files(what, names, files);
        tokens
    }

    fn insert(&mut self, id: u32, token: AddedToken) {
        self.by_text.insert(token.text.clone(), id);
        let special = self.by_id.get(&id).is_some_and(|old| old.special) || token.special;
        if self.by_id.insert(id, AddedToken { special, ..token }).is_none() {
            self.order.push(id);
        }
    }

    fn add_files(&mut self, what: &str, names: &Names, files: &mut SideFiles) {
        let first = self.end().max(names.len());
        let mut next = first;
        for (id, said) in files.with_ids(first, |text| self.id(names, text)) {
            let other = self.get(id).map(|token| token.text.as_str()).or_else(|| names.text(id)).map(str::to_owned);
            let clash = match (self.id(names, &said.text), other) {
                (Some(known), _) => {
                    self.promote(known, &said);
                    (known != id).then(|| format!("there it has the id {known}"))
                }
                (None, Some(other)) => Some(format!("there that is `{other}`")),
                (None, None) if id as usize >= next + MAX_GAP || id as usize >= MAX_IDS => {
                    Some(format!("there are {next} ids"))
                }
                (None, None) => {
                    self.promote(id, &said);
                    next = next.max(id as usize + 1);
                    None
                }
            };
            if let Some(clash) = clash {
                let text = &said.text;
                files
                    .warnings
                    .push(format!("a file beside {what} gives `{text}` the id {id}, but {clash}: {what} is followed"));
            }
        }
    }

    /// Adds the token of that id with the facts of the files beside its `tokenizer.json`, where they say more.
    fn promote(&mut self, id: u32, said: &Added) {
        match self.by_id.get_mut(&id) {
            Some(token) => token.special |= said.special == Some(true),
            None => {
                let special = said.kind() == TokenKind::Control;
                let normalized = self.normalized.contains(&said.text);
                self.insert(id, AddedToken { text: said.text.clone(), special, normalized, place: said.place });
            }
        }
    }

    fn id(&self, names: &Names, text: &str) -> Option<u32> {
        self.by_text.get(text).copied().or_else(|| names.id(text))
    }

    pub(super) fn get(&self, id: u32) -> Option<&AddedToken> {
        self.by_id.get(&id)
    }

    pub(super) fn is_special(&self, id: u32) -> bool {
        self.get(id).is_some_and(|token| token.special)
    }

    /// One past the highest id.
    pub(super) fn end(&self) -> usize {
        self.by_id.last_key_value().map_or(0, |(&id, _)| id as usize + 1)
    }

    /// The tokens that are looked for in the normalized text or in the text as it is, as they read there.
    pub(super) fn specials(&self, normalized: bool, steps: &[Normalizer]) -> Result<Vec<Special>> {
        let tokens = self.order.iter().filter_map(|&id| Some((id, self.get(id)?)));
        let mut found = Vec::new();
        for (id, token) in tokens.filter(|(_, token)| token.normalized == normalized) {
            let kind = if token.special { TokenKind::Control } else { TokenKind::UserDefined };
            let text = normalize(steps, &token.text, 0)?.0.into_owned();
            found.push(Special { id, kind, text, place: token.place });
        }
        // The library looks for special tokens first.
        found.sort_by_key(|token| token.kind != TokenKind::Control);
        Ok(found)
    }
}
