//! What converters write, on vocabularies small enough to check by hand.

use handmill_runtime::format::gguf::GgufWriter;

use super::super::Tokenizer;

/// The tokenizer in a file with these keys; all but the last part of their names may be left out.
fn load(put: impl FnOnce(&mut GgufWriter)) -> Tokenizer {
    try_load(put).unwrap_or_else(|e| panic!("{e}"))
}

fn try_load(put: impl FnOnce(&mut GgufWriter)) -> Result<Tokenizer, String> {
    let mut gguf = GgufWriter::new();
    put(&mut gguf);
    let file = tempfile::Builder::new().suffix(".gguf").tempfile().expect("a file");
    std::fs::write(file.path(), gguf.to_bytes()).expect("writing");
    Tokenizer::from_path(file.path()).map_err(|e| e.to_string())
}

/// Puts tokens given as text and kind.
fn tokens(gguf: &mut GgufWriter, tokens: &[(&str, i32)]) {
    gguf.put("tokenizer.ggml.tokens", tokens.iter().map(|t| t.0).collect::<Vec<_>>());
    gguf.put("tokenizer.ggml.token_type", tokens.iter().map(|t| t.1).collect::<Vec<_>>());
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text, true, true).expect("encoding")
}

const GEMMA4: [(&str, i32); 16] = [
    ("<pad>", 3),
    ("<eos>", 3),
    ("<bos>", 3),
    ("<unk>", 2),
    ("<0xC3>", 6),
    ("<0xA9>", 6),
    ("a", 1),
    ("b", 1),
    ("▁", 1),
    ("\n", 1),
    ("\n\n", 1),
    ("▁a", 1),
    ("ab", 1),
    ("▁ab", 1),
    ("<|turn>", 3),
    ("<turn|>", 3),
];

/// Gemma 4's small vocabulary with `byte` for the kind of its tokens for bytes.
fn gemma4(gguf: &mut GgufWriter, byte: i32) {
    tokens(gguf, &GEMMA4.map(|(text, kind)| (text, if kind == 6 { byte } else { kind })));
    gguf.put("tokenizer.ggml.merges", vec!["a b", "▁ ab", "\n \n", "▁ a"]);
    gguf.put("tokenizer.ggml.scores", vec![-1000.0f32; GEMMA4.len()]);
}

#[test]
fn gemma4_is_read_whichever_converter_wrote_it() {
    type Put = fn(&mut GgufWriter);
    let converters: [Put; 5] = [
        |gguf| {
            gguf.put("tokenizer.ggml.model", "gemma4").put("tokenizer.ggml.bos_token_id", 2u32);
            gguf.put("tokenizer.ggml.add_space_prefix", false).put("tokenizer.ggml.add_bos_token", true);
            gemma4(gguf, 6);
        },
        |gguf| {
            // The first files had it so (llama.cpp#21500).
            gguf.put("tokenizer.ggml.model", "gemma4").put("tokenizer.ggml.add_bos_token", false);
            gemma4(gguf, 6);
        },
        |gguf| {
            gguf.put("tokenizer.ggml.model", "llama").put("tokenizer.ggml.pre", "gemma4");
            gemma4(gguf, 1);
        },
        |gguf| {
            gguf.put("tokenizer.ggml.model", "gpt2").put("tokenizer.ggml.pre", "gemma4");
            gemma4(gguf, 6);
        },
        |gguf| {
            gguf.put("tokenizer.ggml.model", "llama").put("general.architecture", "gemma4");
            gemma4(gguf, 6);
        },
    ];
    for (i, put) in converters.into_iter().enumerate() {
        let t = load(put);
        assert_eq!(encode(&t, "ab ab\n\n\n a"), [2, 12, 13, 10, 9, 11], "converter {i}");
        assert_eq!(encode(&t, "é▁ab<turn|>ab"), [2, 4, 5, 13, 15, 12], "converter {i}");
        assert_eq!(encode(&t, "xyz"), [2, 3], "converter {i}: what bytes cannot spell is one unknown token");
        assert_eq!(t.decode(&[2, 13, 4, 5, 15], true), " abé", "converter {i}");
        assert_eq!((t.bos(), t.eos(), t.end_of_turn_ids()), (Some(2), Some(1), &[1, 15][..]), "converter {i}");
    }
    let error = try_load(|gguf| {
        gguf.put("tokenizer.ggml.model", "gemma4");
        tokens(gguf, &GEMMA4);
    });
    assert!(error.unwrap_err().contains("tokenizer.ggml.merges is missing"));
}

#[test]
fn merges_say_the_order_where_all_scores_are_the_same() {
    let pieces = [("<unk>", 2), ("<s>", 3), ("</s>", 3), ("▁", 1), ("a", 1), ("b", 1), ("ab", 1), ("ba", 1), ("▁a", 1)];
    for scores in [Some(vec![-1000.0f32; pieces.len()]), None] {
        let t = load(|gguf| {
            gguf.put("tokenizer.ggml.model", "llama").put("tokenizer.ggml.merges", vec!["b a", "a b", "▁ a"]);
            tokens(gguf, &pieces);
            if let Some(scores) = scores {
                gguf.put("tokenizer.ggml.scores", scores);
            }
        });
        assert_eq!(encode(&t, "aba"), [1, 8, 7]);
    }
}

#[test]
fn special_tokens_of_phi3_swallow_the_white_space_behind_them() {
    let pieces =
        [("<unk>", 2), ("<s>", 3), ("</s>", 3), ("<0x0A>", 6), ("▁", 1), ("a", 1), ("▁a", 1), ("<|endoftext|>", 3)];
    let user = [("<|user|>", 3), ("<|end|>", 3)];
    let phi = |key: &str, value: &str| {
        load(|gguf| {
            gguf.put("tokenizer.ggml.model", "llama").put(key, value).put("tokenizer.ggml.add_bos_token", false);
            tokens(gguf, &[&pieces[..], &user].concat());
            gguf.put("tokenizer.ggml.scores", (0..10).map(|id| -(id as f32)).collect::<Vec<_>>());
        })
    };
    for (key, value) in
        [("general.architecture", "phi3"), ("general.architecture", "phimoe"), ("general.name", "Phi-3 mini")]
    {
        let t = phi(key, value);
        assert_eq!(encode(&t, "<|user|>\n a<|end|>\n<|user|> \n"), [8, 6, 9, 8], "{value}");
        assert_eq!(encode(&t, "<s>\n<|endoftext|>\n</s>\na"), [1, 4, 3, 7, 4, 3, 2, 6], "{value}");
    }
    assert_eq!(encode(&phi("general.architecture", "llama"), "<|user|>\n"), [8, 4, 3]);
}

#[test]
fn a_special_id_out_of_range_never_becomes_another_id() {
    let load = |model: &str, key: &str, id: &dyn Fn(&mut GgufWriter, &str)| {
        load(|gguf| {
            gguf.put("tokenizer.ggml.model", model).put("tokenizer.ggml.pre", "gpt-2");
            tokens(gguf, &[("a", 1), ("b", 1), ("▁", 1), ("<s>", 3)]);
            gguf.put("tokenizer.ggml.merges", Vec::<String>::new()).put("tokenizer.ggml.add_bos_token", true);
            gguf.put("tokenizer.ggml.scores", vec![0.0f32, 1.0, 2.0, 3.0]).put("tokenizer.ggml.add_eos_token", true);
            gguf.put("tokenizer.ggml.add_space_prefix", false);
            id(gguf, key);
        })
    };
    type Id = fn(&mut GgufWriter, &str);
    let ids: [Id; 4] = [
        |gguf, key| {
            gguf.put(key, 4u32);
        },
        |gguf, key| {
            gguf.put(key, u32::MAX);
        },
        |gguf, key| {
            gguf.put(key, -1i32);
        },
        |gguf, key| {
            gguf.put(key, 1u64 << 32);
        },
    ];
    for id in ids {
        for (model, others) in [("gpt2", vec![]), ("llama", vec![2])] {
            let key = "tokenizer.ggml.bos_token_id";
            let t = load(model, key, &id);
            assert_eq!((encode(&t, "a"), t.bos()), ([vec![0], others].concat(), None));
            assert!(t.warnings().len() == 1 && t.warnings()[0].contains(key), "{:?}", t.warnings());
            for name in ["eos", "eot", "unknown", "padding", "fim_pad"] {
                let key = format!("tokenizer.ggml.{name}_token_id");
                let t = load(model, &key, &id);
                assert!(t.warnings().iter().any(|warning| warning.contains(&key)), "{key}: {:?}", t.warnings());
            }
        }
    }
    let t = load("gpt2", "tokenizer.ggml.eos_token_ids", &|gguf, key| {
        gguf.put(key, vec![1u32, 7]);
    });
    assert_eq!(t.end_of_turn_ids(), [1]);
    assert!(t.warnings().iter().any(|warning| warning.contains("eos_token_ids is 7")), "{:?}", t.warnings());
}

#[test]
fn keys_of_infill_tokens_and_lists_of_ends_end_an_answer() {
    let t = load(|gguf| {
        gguf.put("tokenizer.ggml.model", "gpt2").put("tokenizer.ggml.pre", "gpt-2");
        tokens(gguf, &[("a", 1), ("b", 1), ("<P>", 3), ("<R>", 3), ("<S>", 3), ("<E>", 3), ("<M>", 3)]);
        gguf.put("tokenizer.ggml.merges", Vec::<String>::new());
        for (name, id) in [("fim_pad", 2u32), ("fim_rep", 3), ("fim_sep", 4), ("fim_mid", 6)] {
            gguf.put(&format!("tokenizer.ggml.{name}_token_id"), id);
        }
        gguf.put("tokenizer.ggml.eos_token_ids", vec![5i32, 2]);
    });
    assert_eq!(t.end_of_turn_ids(), [2, 3, 4, 5]);
}

#[test]
fn a_marker_in_a_file_without_kinds_is_a_token() {
    let t = load(|gguf| {
        gguf.put("tokenizer.ggml.model", "gpt2").put("tokenizer.ggml.pre", "gpt-2");
        gguf.put("tokenizer.ggml.tokens", vec!["a", "<|im_end|>"]);
        gguf.put("tokenizer.ggml.merges", Vec::<String>::new());
    });
    assert_eq!((encode(&t, "a<|im_end|>"), t.end_of_turn_ids()), (vec![0, 1], &[1][..]));
}

#[test]
fn kimi_k2_joins_by_ids_where_converters_leave_the_merges_out() {
    let load = |pre: &str| {
        try_load(|gguf| {
            gguf.put("tokenizer.ggml.model", "gpt2").put("tokenizer.ggml.pre", pre);
            tokens(gguf, &[("a", 1), ("b", 1), ("c", 1), ("bc", 1), ("ab", 1), ("abc", 1), ("abcc", 1)]);
        })
    };
    let t = load("kimi-k2").expect("a tokenizer");
    assert_eq!(encode(&t, "abcb"), [5, 1], "bc goes before ab");
    assert_eq!(encode(&t, "abcc"), [6], "a word that is a token");
    assert!(load("gpt-2").unwrap_err().contains("tokenizer.ggml.merges is missing"));
}
