//! A tokenizer as llguidance wants to see it.

use std::sync::Arc;

use handmill_models::text::{TokenKind, Tokenizer};
use llguidance::toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use super::ConstraintError;

/// The tokens by their bytes, and the tokenizer.
pub(super) struct Vocabulary {
    tokenizer: Arc<Tokenizer>,
    trie: TokTrie,
}

impl Vocabulary {
    pub fn new(tokenizer: Arc<Tokenizer>, n_vocab: usize) -> Result<Self, ConstraintError> {
        let ends: Vec<TokenId> =
            tokenizer.end_of_turn_ids().iter().copied().filter(|id| (*id as usize) < n_vocab).collect();
        let (Some(&end), Ok(vocab_size)) = (ends.first(), u32::try_from(n_vocab)) else {
            return Err(ConstraintError::Vocabulary("it has no token that ends a turn".to_owned()));
        };
        let words: Vec<Vec<u8>> = (0..vocab_size).map(|id| bytes(&tokenizer, id)).collect();
        let trie = TokTrie::from(&TokRxInfo::new(vocab_size, end), &words).with_eos_tokens(&ends);
        Ok(Self { tokenizer, trie })
    }

    /// Control tokens by their names.
    pub fn controls(&self) -> Vec<(String, TokenId)> {
        let control = |id: &TokenId| self.tokenizer.token_kind(*id) == Some(TokenKind::Control);
        let named = |id| Some((String::from_utf8(self.tokenizer.token_bytes(id)?).ok()?, id));
        (0..self.trie.vocab_size() as TokenId)
            .filter(control)
            .filter_map(named)
            .filter(|(name, _)| !name.is_empty())
            .collect()
    }

    pub fn shared(self) -> TokEnv {
        Arc::new(self)
    }
}

/// The bytes of a token as text has them. Control tokens are no text: a mark stands before their names, by which grammars may
/// ask for them. Places without a token have no bytes, and are never allowed.
fn bytes(tokenizer: &Tokenizer, id: TokenId) -> Vec<u8> {
    let bytes = tokenizer.token_bytes(id).unwrap_or_default();
    match tokenizer.token_kind(id) {
        Some(TokenKind::Unknown | TokenKind::Unused) | None => Vec::new(),
        Some(TokenKind::Control) => [&[TokTrie::SPECIAL_TOKEN_MARKER], &bytes[..]].concat(),
        Some(_) if tokenizer.is_end_of_turn(id) => [&[TokTrie::SPECIAL_TOKEN_MARKER], &bytes[..]].concat(),
        Some(_) => bytes,
    }
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let text = std::str::from_utf8(bytes).ok();
        let ids = text.and_then(|text| self.tokenizer.encode(text, false, false).ok());
        ids.unwrap_or_else(|| self.trie.greedy_tokenize(bytes))
    }

    fn tokenize_is_canonical(&self) -> bool {
        // Tokens are never forced: the model chooses each of them.
        false
    }
}
