//! Every family fixture against transformers' float32 logits, from safetensors with both spellings of the config and
//! from GGUF; and what must not change the answer: chunking, batching, threads, instruction set.

#[path = "families/configurations.rs"]
mod configurations;
mod support;

use std::path::Path;

use handmill_models::{
    Engine, EngineOptions, Model,
    engine::{KvChoice, PrecisionChoice},
};
use handmill_runtime::cpu::Isa;
use serde_json::{Value, json};
use support::{
    FAMILIES, Fixture, Matrix, NOT_IN_GGUF, Options, Session, Spelling, Stored, argmax, assert_close, family_table,
    fixtures_dir, why_not, worst, write_gguf,
};

/// Largest |Δlogit| allowed with f32 weights and f32 keys and values; logits have a standard deviation of about 2.
const TOLERANCE: f32 = 2e-4;

macro_rules! families {
    ($($test:ident $name:literal,)*) => {
        $(mod $test {
            use super::*;

            #[test]
            fn safetensors() {
                check_logits($name, Source::Safetensors(Spelling::V5));
            }
            #[test]
            fn published_config() {
                check_logits($name, Source::Safetensors(Spelling::Legacy));
            }
            #[test]
            fn gguf() {
                check_logits($name, Source::Gguf);
            }
            #[test]
            fn invariance() {
                check_invariance($name);
            }
        })*

        #[test]
        fn every_fixture_is_tested() {
            let tested = [$($name),*];
            assert_eq!(tested, FAMILIES);
            let mut found: Vec<_> = std::fs::read_dir(fixtures_dir().join("families"))
                .expect("fixtures")
                .map(|e| e.expect("fixtures"))
                .filter(|e| e.path().join("expected.json").exists())
                .map(|e| e.file_name().into_string().expect("a plain name"))
                .collect();
            found.sort();
            let mut tested = tested.map(String::from);
            tested.sort();
            assert_eq!(found, tested);
        }
    };
}

families! {
    llama2 "llama2",
    llama3 "llama3",
    llama3_bf16 "llama3-bf16",
    llama_linear "llama-linear",
    llama_dynamic "llama-dynamic",
    qwen2 "qwen2",
    qwen3 "qwen3",
    qwen3_sharded "qwen3-sharded",
    gemma3 "gemma3",
    mm_gemma3 "mm-gemma3",
    mistral "mistral",
    ministral "ministral",
    ministral3 "ministral3",
    mm_ministral3 "mm-ministral3",
    mm_mistral3 "mm-mistral3",
    phi2 "phi2",
    phi2_qk_norm "phi2-qk-norm",
    phi3_longrope "phi3-longrope",
    phi3_swa "phi3-swa",
    phi4_mini "phi4-mini",
    gemma "gemma",
    gemma2 "gemma2",
    olmo2 "olmo2",
    olmo3 "olmo3",
    granite "granite",
    smollm3 "smollm3",
    qwen3_5 "qwen3_5",
    mm_qwen3_5 "mm-qwen3_5",
    qwen3_next "qwen3-next",
    qwen3_5_moe "qwen3_5-moe",
    deepseek_v2_lite "deepseek-v2-lite",
    deepseek_v2 "deepseek-v2",
    deepseek_v3 "deepseek-v3",
    mistral4 "mistral4",
    deepseek_v3_fp8 "deepseek-v3-fp8",
    deepseek_v3_2 "deepseek-v3.2",
    deepseek_v4 "deepseek-v4",
    gemma4 "gemma4",
    mm_gemma4 "mm-gemma4",
    gemma4_moe "gemma4-moe",
    gemma3n "gemma3n",
    mixtral "mixtral",
    qwen2_moe "qwen2-moe",
    qwen3_moe "qwen3-moe",
    phimoe "phimoe",
    granitemoe "granitemoe",
    gpt_oss "gpt-oss",
    gpt_oss_mxfp4 "gpt-oss-mxfp4",
    llama4 "llama4",
    mm_llama4 "mm-llama4",
}

/// Where a sequence grows past the length that its RoPE's short factors are for, all of it turns by the long ones. With
/// one layer keys depend on nothing but their tokens, so that however the sequence grew, every step must give what a
/// new sequence of that length gives.
#[test]
fn crossing_the_original_length() {
    for name in ["phi3-longrope", "phi4-mini", "llama-dynamic"] {
        let fixture = Fixture::load(name);
        let ids = &fixture.prompt_ids;
        let original = match fixture.config["original_max_position_embeddings"].as_u64() {
            Some(original) => original as usize,
            None => fixture.config["max_position_embeddings"].as_u64().expect("a length") as usize,
        };
        assert!(original + 4 < ids.len(), "{name}: the prompt does not cross {original}");
        let folder = fixture.cut(1);
        let open = || Session::open(folder.path(), Options::default());
        let whole = |n: usize| open().feed(&ids[..n]);
        for cut in [1, original - 3, original - 1, original, original + 1] {
            let mut session = open();
            let mut at = 0;
            for n in [cut, original + 1 - cut.min(original), 1, 2] {
                let got = session.feed(&ids[at..at + n]);
                at += n;
                let want = whole(at).slice(at - n..at);
                assert_close(&format!("{name}: {n} tokens up to {at}, first {cut}"), &got, &want, TOLERANCE);
            }
        }
        // Sequences on both sides of it in one batch.
        let prompts: [&[u32]; 3] = [&ids[..original], ids, &ids[..3]];
        for (prompt, got) in prompts.iter().zip(open().feed_batch(&prompts)) {
            assert_close(&format!("{name}: {} tokens in a batch", prompt.len()), &got, &whole(prompt.len()), TOLERANCE);
        }
    }
}

/// A prompt that takes several steps turns by the length of all of it, as if one step had taken it.
#[test]
fn prompts_in_parts_turn_by_their_whole_length() {
    for name in ["phi3-longrope", "phi4-mini", "phimoe", "llama-dynamic"] {
        let fixture = Fixture::load(name);
        let model = Model::open(&fixture.dir).expect("a model");
        for part in [5, 16, 17] {
            let (kv, precision) = (KvChoice::F32, PrecisionChoice::Exact);
            let options = EngineOptions { kv, precision, max_step_tokens: part, ..EngineOptions::default() };
            let mut engine = Engine::new(&model, &options).expect("an engine");
            let mut rows = Vec::new();
            engine.logits(&fixture.prompt_ids, |part| rows.extend_from_slice(part)).expect("logits");
            let what = format!("{name} in parts of {part}");
            assert_close(&what, &Matrix::new(fixture.logits.cols, rows), &fixture.logits, TOLERANCE);
            let mut sequence = engine.sequence();
            let last = engine.prefill(&mut sequence, &fixture.prompt_ids).expect("logits").to_vec();
            let (last, n) = (Matrix::new(fixture.logits.cols, last), fixture.prompt_ids.len());
            assert_close(&format!("{what}, the last"), &last, &fixture.logits.slice(n - 1..n), TOLERANCE);
        }
    }
}

/// A key that is left out means what the family's class says.
#[test]
fn defaults_are_the_class_s() {
    let cases = [
        ("gemma2", "attn_logit_softcapping", json!(50.0)),
        ("gemma2", "final_logit_softcapping", json!(30.0)),
        ("ministral3", "rms_norm_eps", json!(1e-5)),
        ("deepseek-v2-lite", "n_shared_experts", json!(2)),
        ("deepseek-v3", "n_shared_experts", json!(1)),
        ("deepseek-v3", "routed_scaling_factor", json!(2.5)),
        ("deepseek-v3", "topk_group", json!(4)),
    ];
    for (name, key, value) in cases {
        let fixture = Fixture::load(name);
        let logits = |value: Option<Value>| {
            let folder = fixture.changed(|config| match value {
                Some(value) => config[key] = value,
                None => drop(config.as_object_mut().expect("an object").remove(key)),
            });
            Session::open(folder.path(), Options::default()).feed(&fixture.prompt_ids)
        };
        assert_eq!(logits(None).data, logits(Some(value)).data, "{name}: {key}");
    }
}

/// Gemma 3 may bound logits as Gemma 2 does, though none that is published does.
#[test]
fn gemma_3_bounds_logits() {
    let fixture = Fixture::load("gemma3");
    let folder = fixture.changed(|config| config["final_logit_softcapping"] = json!(5.0));
    let bound = fixture.logits.data.iter().map(|x| 5.0 * (x / 5.0).tanh()).collect();
    let got = Session::open(folder.path(), Options::default()).feed(&fixture.prompt_ids);
    assert_close("bound", &got, &Matrix::new(fixture.logits.cols, bound), TOLERANCE);
}

/// What asks for maths that the family does not have is refused by name, not left out.
#[test]
fn other_maths_are_refused() {
    let cases = [
        ("llama3", "attn_logit_softcapping", json!(30.0)),
        ("qwen3", "final_logit_softcapping", json!(30.0)),
        ("llama2", "residual_multiplier", json!(0.5)),
        ("qwen2", "attention_multiplier", json!(0.5)),
        ("mistral", "query_pre_attn_scalar", json!(16)),
        ("olmo2", "clip_qkv", json!(8.0)),
        ("phi3-swa", "use_bidirectional_attention", json!(true)),
        ("llama3", "layer_types", json!(["sliding_attention", "full_attention"])),
        ("deepseek-v3", "topk_method", json!("greedy")),
        ("gpt-oss", "rope_parameters", json!(null)),
        ("phi2", "hidden_act", json!("relu")),
    ];
    for (name, key, value) in cases {
        let folder = Fixture::load(name).changed(|config| config[key] = value);
        match Session::try_open(folder.path(), Options::default()) {
            Ok(_) => panic!("{name} runs with {key}"),
            Err(error) => assert!(error.to_string().contains(key), "{name} with {key}: {error}"),
        }
    }
    let neutral = json!({"residual_multiplier": 1.0, "qk_layernorm": false, "clip_qkv": null, "logits_scaling": 1});
    let folder = Fixture::load("llama2").changed(|config| {
        config.as_object_mut().expect("an object").extend(neutral.as_object().expect("an object").clone());
    });
    Session::open(folder.path(), Options::default());
}

/// A bias that the graph would not add is refused.
#[test]
fn other_biases_are_refused() {
    let name = "model.layers.1.self_attn.q_norm.bias";
    let folder =
        Fixture::load("qwen3").edited(|_| {}, |tensors| drop(tensors.insert(name.into(), Stored::zeros(&[24]))));
    let error = Session::try_open(folder.path(), Options::default()).err().expect("an error");
    assert!(error.to_string().contains(name), "{error}");
}

#[derive(Clone, Copy, Debug)]
enum Source {
    Safetensors(Spelling),
    Gguf,
}

/// Prompt and greedy continuation of `name` as `source` has it.
fn check_logits(name: &'static str, source: Source) {
    let fixture = Fixture::load(name);
    match source {
        Source::Safetensors(spelling) => {
            let (folder, _guard) = fixture.folder(spelling);
            check_continuation(&fixture, &folder);
        }
        Source::Gguf => {
            let temp = tempfile::TempDir::new().expect("temporary folder");
            let path = temp.path().join("model.gguf");
            let written = write_gguf(&fixture, &path);
            match (written, why_not(NOT_IN_GGUF, name)) {
                (Ok(()), None) => check_continuation(&fixture, &path),
                (Err(why), Some(expected)) => assert_eq!(why, expected),
                (written, known) => panic!("{name}: written {written:?}, listed as not expressible: {known:?}"),
            }
        }
    }
}

/// What files run as whose converter has lost a key.
#[test]
fn gguf_without_keys() {
    type Change = fn(&mut Value);
    let cases: [(&str, &[&str], Change); 5] = [
        ("mistral", &["attention.sliding_window"], |c| c["sliding_window"] = Value::Null),
        ("ministral", &["attention.sliding_window_pattern"], |c| {
            c["layer_types"] = vec!["sliding_attention"; 4].into()
        }),
        ("llama-dynamic", &["rope.scaling.type"], |c| c["rope_parameters"]["rope_type"] = "linear".into()),
        ("llama4", &["attention.sliding_window", "attention.temperature"], |c| {
            (c["attention_chunk_size"], c["floor_scale"]) = (8192.into(), 8192.into());
        }),
        ("gpt-oss", &["swiglu_clamp_exp"], |c| c["swiglu_limit"] = 7.0.into()),
    ];
    for (name, keys, change) in cases {
        let fixture = Fixture::load(name);
        let temp = tempfile::TempDir::new().expect("temporary folder");
        let path = temp.path().join("model.gguf");
        write_gguf(&fixture, &path).expect("expressible");
        let mut bytes = std::fs::read(&path).expect("the file just written");
        for key in keys {
            let at: Vec<usize> =
                (0..bytes.len() - key.len()).filter(|i| bytes[*i..].starts_with(key.as_bytes())).collect();
            assert!(!at.is_empty(), "{name} has no {key}");
            at.into_iter().for_each(|at| bytes[at..at + key.len()].fill(b'x'));
        }
        std::fs::write(&path, bytes).expect("writing");
        let want = Session::open(fixture.changed(change).path(), Options::default()).feed(&fixture.prompt_ids);
        let got = Session::open(&path, Options::default()).feed(&fixture.prompt_ids);
        assert_close(&format!("{name} without {keys:?}"), &got, &want, TOLERANCE);
        assert!(worst(&got, &fixture.logits).0 > 10.0 * TOLERANCE, "{name}: {keys:?} change nothing");
    }
}

fn check_continuation(fixture: &Fixture, path: &Path) {
    let mut session = Session::open(path, Options::default());
    assert_close("prompt", &session.feed(&fixture.prompt_ids), &fixture.logits, TOLERANCE);
    // The reference fed its own tokens back, so each of its steps is compared, whatever we would have chosen.
    let mut steps = fixture.logits.row(fixture.prompt_ids.len() - 1).to_vec();
    let mut ids = fixture.prompt_ids.clone();
    for &id in &fixture.gen_ids[..fixture.gen_ids.len() - 1] {
        ids.push(id);
        let row = if fixture.length_dependent_rope {
            let all = Session::open(path, Options::default()).feed(&ids);
            all.row(ids.len() - 1).to_vec()
        } else {
            session.feed(&[id]).data
        };
        steps.extend(row);
    }
    let steps = Matrix::new(fixture.logits.cols, steps);
    assert_close("generation", &steps, &fixture.gen_step_logits, TOLERANCE);
    for (k, (&id, &margin)) in fixture.gen_ids.iter().zip(&fixture.gen_margins).enumerate() {
        if margin > 2.0 * TOLERANCE {
            assert_eq!(argmax(steps.row(k)) as u32, id, "greedy token {k}, margin {margin}");
        }
    }
}

/// One answer however the prompt is cut, whatever else is in the batch, on any number of threads and any ISA.
fn check_invariance(name: &'static str) {
    let fixture = Fixture::load(name);
    let ids = &fixture.prompt_ids;
    let open = |options: Options| Session::open(&fixture.dir, options);
    let whole = open(Options::default()).feed(ids);

    // Where RoPE depends on the length, what a chunk computed for the layers above it is not what a longer one does.
    if !fixture.length_dependent_rope {
        for size in [1, 3, 7, 16] {
            let mut session = open(Options::default());
            let rows = ids.chunks(size).flat_map(|chunk| session.feed(chunk).data).collect();
            let chunked = Matrix::new(whole.cols, rows);
            assert_close(&format!("chunks of {size}"), &chunked, &fixture.logits, TOLERANCE);
            assert_close(&format!("chunks of {size} against the whole"), &chunked, &whole, TOLERANCE);
        }
    }

    // A prefix out of the cache, taken up by two sequences that go on differently.
    if !fixture.length_dependent_rope {
        let mut session = open(Options::default());
        session.feed(&ids[..21]);
        let last: Vec<u32> = ids[21..].iter().rev().copied().collect();
        session.feed_fork(&last);
        let forked = session.feed_fork(&ids[21..]);
        assert_close("a forked prefix", &forked, &fixture.logits.slice(21..ids.len()), TOLERANCE);
        let rest = session.feed(&ids[21..]);
        assert_close("the prefix itself", &rest, &fixture.logits.slice(21..ids.len()), TOLERANCE);

        // What is taken back leaves nothing behind. Where a state sums up the past, nothing can be.
        let mut session = open(Options::default());
        session.feed(&ids[..21]);
        session.feed(&last[..9]);
        let recurrent = ["qwen3-next", "qwen3_5", "mm-qwen3_5", "qwen3_5-moe"].contains(&name);
        assert_eq!(session.take_back(21), !recurrent);
        if !recurrent {
            let rest = session.feed(&ids[21..]);
            assert_close("after taking back", &rest, &fixture.logits.slice(21..ids.len()), TOLERANCE);
        }
    }

    let other: Vec<u32> = ids.iter().rev().take(17).copied().collect();
    let alone = open(Options::default()).feed(&other);
    let both = open(Options::default()).feed_batch(&[ids, &other]);
    assert_close("first of two in a batch", &both[0], &whole, TOLERANCE);
    assert_close("second of two in a batch", &both[1], &alone, TOLERANCE);

    for threads in [1, 2, 3] {
        let got = open(Options { threads: Some(threads), ..Options::default() }).feed(ids);
        assert_close(&format!("{threads} threads"), &got, &fixture.logits, TOLERANCE);
        let same = got.data.iter().zip(&whole.data).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{threads} threads give other bits than the default");
    }

    for isa in Isa::available() {
        let mut session = open(Options { isa: Some(isa), ..Options::default() });
        assert_close(&format!("{isa:?}"), &session.feed(ids), &fixture.logits, TOLERANCE);
        if !fixture.length_dependent_rope {
            // One token takes the mat-vec kernels, the prompt the mat-mat ones.
            let step = session.feed(&fixture.gen_ids[..1]);
            assert_close(&format!("{isa:?}, one token"), &step, &fixture.gen_step_logits.slice(1..2), TOLERANCE);
        }
    }
}

#[test]
fn a_raised_flag_ends_an_answer_and_a_prompt() {
    use handmill_models::{GenerateOptions, engine::StopReason};
    use std::sync::{Arc, atomic::AtomicBool, atomic::Ordering};
    let fixture = Fixture::load("llama2");
    let model = Model::open(&fixture.dir).expect("a model");
    let mut engine = Engine::new(&model, &EngineOptions::default()).expect("an engine");
    let flag = Arc::new(AtomicBool::new(false));
    let options =
        GenerateOptions { ignore_end_of_turn: true, cancel: Some(flag.clone()), ..GenerateOptions::default() };
    let mut pieces = 0;
    let stats = engine.generate(&fixture.prompt_ids, &options, |_| {
        pieces += 1;
        flag.store(true, Ordering::Relaxed);
        std::ops::ControlFlow::Continue(())
    });
    let stats = stats.expect("an answer");
    assert_eq!((pieces, stats.stop), (1, StopReason::Cancelled));
    assert!(!stats.generated.is_empty());

    let stats = engine.generate(&fixture.prompt_ids, &options, |_| panic!("text after the flag"));
    let stats = stats.expect("no answer");
    assert_eq!((stats.generated.len(), stats.stop), (0, StopReason::Cancelled));
}

/// Between these lines of the README stands the table.
const TABLE: (&str, &str) = ("<!-- families -->\n", "<!-- end of families -->");

/// `HANDMILL_UPDATE_README=1` writes the table instead.
#[test]
fn readme_has_the_table_of_families() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).expect("README.md");
    let (before, rest) = readme.split_once(TABLE.0).expect("where the table begins");
    let (found, after) = rest.split_once(TABLE.1).expect("where the table ends");
    let table = family_table();
    if std::env::var_os("HANDMILL_UPDATE_README").is_some() {
        std::fs::write(&path, format!("{before}{}{table}{}{after}", TABLE.0, TABLE.1)).expect("writing README.md");
    } else {
        assert_eq!(found, table, "run this test once with HANDMILL_UPDATE_README=1");
    }
}
