//! The printable alphabet of byte-level BPE: each of the 256 bytes is written as one visible character.
//!
//! Source: GPT-2's `bytes_to_unicode`. Bytes that are printable in Latin-1 stand for themselves; the 68 others take
//! the characters from U+0100 on, in order (so a space is `Ġ` and a line feed `Ċ`).

/// The first character after the alphabet: 256 + 68 bytes that do not stand for themselves.
const END: usize = 256 + 68;

/// `FROM_CHAR[c]` is the byte that character `c` stands for, or -1.
const FROM_CHAR: [i16; END] = build();

const fn stands_for_itself(byte: usize) -> bool {
    matches!(byte, 33..=126 | 161..=172 | 174..=255)
}

const fn build() -> [i16; END] {
    let mut table = [-1; END];
    let mut next = 256;
    let mut byte = 0;
    while byte < 256 {
        if stands_for_itself(byte) {
            table[byte] = byte as i16;
        } else {
            table[next] = byte as i16;
            next += 1;
        }
        byte += 1;
    }
    table
}

/// The characters of the bytes, in order.
pub(crate) static ALPHABET: [char; 256] = alphabet();

const fn alphabet() -> [char; 256] {
    let mut table = ['\0'; 256];
    let mut c = 0;
    while c < END {
        if let (byte @ 0.., Some(c)) = (FROM_CHAR[c], char::from_u32(c as u32)) {
            table[byte as usize] = c;
        }
        c += 1;
    }
    table
}

/// Whether `token` is written in the alphabet.
pub(crate) fn is_spelled(token: &str) -> bool {
    token.chars().all(|c| FROM_CHAR.get(c as usize).is_some_and(|&byte| byte >= 0))
}

/// Appends the bytes that `token` stands for. A token with a character outside of the alphabet (an added token such
/// as `<｜User｜>`) stands for its own UTF-8.
pub(crate) fn push_bytes(token: &str, out: &mut Vec<u8>) {
    let start = out.len();
    for c in token.chars() {
        match FROM_CHAR.get(c as usize) {
            Some(&byte) if byte >= 0 => out.push(byte as u8),
            _ => {
                out.truncate(start);
                out.extend_from_slice(token.as_bytes());
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(token: &str) -> Vec<u8> {
        let mut out = Vec::new();
        push_bytes(token, &mut out);
        out
    }

    #[test]
    fn known_characters() {
        assert_eq!(bytes("ĠtheĊ"), b" the\n");
        assert_eq!(bytes("ä½ł"), "你".as_bytes());
        assert_eq!(bytes("<｜User｜>"), "<｜User｜>".as_bytes());
        assert_eq!(bytes(""), b"");
    }

    #[test]
    fn every_byte_has_one_character() {
        let mut seen = [0; 256];
        for byte in FROM_CHAR.iter().filter(|&&b| b >= 0) {
            seen[*byte as usize] += 1;
        }
        assert!(seen.iter().all(|&n| n == 1));
        for (byte, c) in ALPHABET.into_iter().enumerate() {
            assert_eq!(bytes(&c.to_string()), [byte as u8]);
        }
        assert!(is_spelled("Ġthe") && !is_spelled(" the") && !is_spelled("你"));
    }
}
