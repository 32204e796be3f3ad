//! Configurations as other tools write them, which run, and those that contradict the weights, which are refused by name.

use std::{fs, path::Path};

use handmill_models::Model;
use handmill_runtime::format::gguf::MetaValue;
use serde_json::{Value, json};

use crate::{
    TOLERANCE,
    support::{Fixture, GgufEdit, Matrix, Options, Session, Stored, Tensors, assert_close, worst},
};

fn logits(fixture: &Fixture, path: &Path) -> Matrix {
    Session::open(path, Options::default()).feed(&fixture.prompt_ids)
}

/// Why `path` does not open.
fn refusal(what: &str, path: &Path) -> String {
    match Session::try_open(path, Options::default()) {
        Ok(_) => panic!("{what} runs"),
        Err(error) => error.to_string(),
    }
}

fn assert_refused(what: &str, path: &Path, expected: &[&str]) {
    let message = refusal(what, path);
    assert!(expected.iter().all(|e| message.contains(e)), "{what}: {message:?} lacks some of {expected:?}");
}

/// The first GGUF files call the factor `rope.scale_linear`, some have a factor and no type: both are linear scaling, and
/// the type `none` is none whatever stands beside it (llama.cpp#2772).
#[test]
fn rope_scaling_in_old_and_partial_spellings() {
    const TYPE: &str = "rope.scaling.type";
    const FACTOR: &str = "rope.scaling.factor";
    const OLD: &str = "rope.scale_linear";
    let fixture = Fixture::load("llama-linear");
    let plain = logits(&fixture, fixture.changed(|c| c["rope_parameters"]["rope_type"] = "default".into()).path());
    assert!(worst(&plain, &fixture.logits).0 > 10.0 * TOLERANCE, "the factor changes nothing");
    let number = |v: f32| MetaValue::from(v);
    type Case<'a> = (&'a [&'a str], Vec<(&'a str, MetaValue)>, &'a Matrix);
    let cases: Vec<Case<'_>> = vec![
        (&[TYPE], vec![], &fixture.logits),
        (&[TYPE, FACTOR], vec![(OLD, number(4.0))], &fixture.logits),
        (&[FACTOR], vec![(OLD, number(4.0))], &fixture.logits),
        // The new key counts.
        (&[TYPE], vec![(OLD, number(9.0))], &fixture.logits),
        (&[TYPE, FACTOR], vec![], &plain),
        (&[FACTOR], vec![], &plain),
        (&[], vec![(TYPE, "none".into())], &plain),
        (&[FACTOR], vec![(TYPE, "none".into()), (OLD, number(4.0))], &plain),
        (&[TYPE], vec![(FACTOR, number(0.0))], &plain),
    ];
    for (i, (drop, put, expected)) in cases.into_iter().enumerate() {
        let (_temp, path) = fixture.edited_gguf(GgufEdit { drop, put, ..GgufEdit::default() });
        assert_close(&format!("spelling {i}"), &logits(&fixture, &path), expected, TOLERANCE);
    }
    // A factor on cosines and sines counts whatever the kind; a base that is left out is that of the first models.
    let (_temp, path) = fixture.edited_gguf(GgufEdit::put("rope.scaling.attn_factor", 1.5f32));
    let model = Model::open(&path).expect("a model");
    assert!(model.graph().ropes().iter().all(|rope| rope.attention_factor == 1.5));
    let (_temp, path) = fixture.edited_gguf(GgufEdit { drop: &["rope.freq_base"], ..GgufEdit::default() });
    assert_close("no base", &logits(&fixture, &path), &fixture.logits, TOLERANCE);

    // Yarn begins at the context's length where the file does not say at which.
    let fixture = Fixture::load("gpt-oss");
    let (_temp, path) =
        fixture.edited_gguf(GgufEdit { drop: &["rope.scaling.original_context_length"], ..GgufEdit::default() });
    let whole = fixture.changed(|c| c["rope_parameters"]["original_max_position_embeddings"] = 131_072.into());
    assert_close("yarn", &logits(&fixture, &path), &logits(&fixture, whole.path()), TOLERANCE);
}

/// Where embedding and head are tied, the one matrix has either's name (transformers#34759).
#[test]
fn one_matrix_under_either_name() {
    let embedding = |name: &str| name.ends_with("embed_tokens.weight") || name == "embed.weight";
    let head = |name: &str| name.ends_with("lm_head.weight") || name == "head.weight";
    let renamed = |tensors: &mut Tensors, to: &str| {
        let from = tensors.keys().find(|name| embedding(name)).expect("an embedding").clone();
        let matrix = tensors.remove(&from).expect("it");
        tensors.insert(to.to_owned(), matrix);
    };
    for (name, to) in [
        ("gemma", "lm_head.weight"),
        ("gemma2", "lm_head.weight"),
        ("gemma3", "model.lm_head.weight"),
        ("gemma3n", "lm_head.weight"),
        ("gemma4", "lm_head.weight"),
        ("granite", "lm_head.weight"),
        ("granitemoe", "lm_head.weight"),
        ("phi4-mini", "lm_head.weight"),
        ("smollm3", "lm_head.weight"),
        ("mm-gemma3", "language_model.lm_head.weight"),
        ("mm-gemma3", "lm_head.weight"),
        ("mm-gemma4", "lm_head.weight"),
    ] {
        let fixture = Fixture::load(name);
        let folder = fixture.edited(|_| {}, |tensors| renamed(tensors, to));
        assert_close(name, &logits(&fixture, folder.path()), &fixture.logits, TOLERANCE);
    }
    // Families whose published models are not tied.
    for name in ["llama2", "llama3-bf16", "mistral", "mixtral", "qwen3", "qwen3_5", "olmo2", "phimoe", "gpt-oss"]
        .into_iter()
        .chain(["llama4", "deepseek-v2-lite", "deepseek-v3.2", "deepseek-v4", "mm-qwen3_5", "mm-llama4", "phi2"])
    {
        let fixture = Fixture::load(name);
        let tie = |config: &mut Value| config["tie_word_embeddings"] = true.into();
        let own = fixture.edited(tie, |tensors| tensors.retain(|name, _| !head(name)));
        let mut of_head = String::new();
        let other = fixture.edited(tie, |tensors| {
            of_head = tensors.keys().find(|name| head(name)).expect("a head").clone();
            tensors.remove(&of_head);
            renamed(tensors, &of_head);
        });
        let (own, other) = (logits(&fixture, own.path()), logits(&fixture, other.path()));
        assert_eq!(own.data, other.data, "{name}: {of_head}");
        assert!(own != fixture.logits, "{name} was tied before");
    }
    for name in ["granite", "gemma3", "smollm3"] {
        let fixture = Fixture::load(name);
        let (_temp, path) =
            fixture.edited_gguf(GgufEdit { rename: &[("token_embd.weight", "output.weight")], ..GgufEdit::default() });
        assert_close(&format!("{name} as GGUF"), &logits(&fixture, &path), &fixture.logits, TOLERANCE);
    }
}

/// A GGUF file that has a head is not tied, whatever the family's models are.
#[test]
fn a_head_in_gguf_counts() {
    for name in ["gemma3", "smollm3", "granite"] {
        let fixture = Fixture::load(name);
        let width = fixture.config["hidden_size"].as_u64().expect("a width") as usize;
        let zeros: &[(&str, &[usize])] = &[("output.weight", &[fixture.logits.cols, width])];
        let (_temp, path) = fixture.edited_gguf(GgufEdit { zeros, ..GgufEdit::default() });
        assert!(logits(&fixture, &path).data.iter().all(|v| *v == 0.0), "{name}");
    }
}

/// A wrapper that ties the head, or does not speak of it, does so for a text model that says that it does not.
#[test]
fn wrappers_tie() {
    let fixture = Fixture::load("mm-qwen3_5");
    let rewrite = |tie: Option<bool>| {
        let folder = fixture.edited(|_| {}, |tensors| drop(tensors.remove("lm_head.weight")));
        let path = folder.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).expect("config")).expect("JSON");
        config["tie_word_embeddings"] = json!(tie);
        fs::write(&path, config.to_string()).expect("writing");
        folder
    };
    Session::open(rewrite(Some(true)).path(), Options::default());
    for tie in [Some(false), None] {
        assert_refused("untied", rewrite(tie).path(), &["tie_word_embeddings", "lm_head.weight"]);
    }
}

fn set(key: &'static str, value: Value) -> Box<dyn Fn(&mut Value)> {
    Box::new(move |config| config[key] = value.clone())
}

/// Counts, flags and formats that the weights contradict are refused by key and tensor.
#[test]
fn configurations_that_lie_are_refused() {
    const Q_BIAS: &str = "self_attn.q_proj.bias";
    let method = |name: &str| json!({"quant_method": name, "bits": 4});
    let cases: Vec<(&'static str, &'static str, Value, &[&str])> = vec![
        ("llama2", "vocab_size", json!(321), &["vocab_size", "321", "embed_tokens", "[320, 96]"]),
        ("llama2", "vocab_size", json!(319), &["vocab_size", "319", "embed_tokens"]),
        ("deepseek-v4", "vocab_size", json!(321), &["vocab_size", "embed.weight"]),
        ("mm-gemma3", "vocab_size", json!(319), &["vocab_size", "embed_tokens"]),
        ("gemma3n", "vocab_size_per_layer_input", json!(299), &["vocab_size_per_layer_input", "299", "300 rows"]),
        ("llama2", "num_hidden_layers", json!(2), &["num_hidden_layers", "is 2", "layers.2."]),
        ("llama2", "num_hidden_layers", json!(4), &["num_hidden_layers", "is 4", "layers.3."]),
        ("mm-gemma4", "num_hidden_layers", json!(5), &["num_hidden_layers"]),
        ("deepseek-v4", "num_hidden_layers", json!(3), &["num_hidden_layers"]),
        ("llama2", "intermediate_size", json!(128), &["gate_proj.weight", "[160, 96]", "[128, 96]"]),
        ("llama2", "num_attention_heads", json!(4), &["q_proj.weight"]),
        ("llama2", "num_key_value_heads", json!(1), &["k_proj.weight"]),
        ("llama2", "hidden_size", json!(192), &["embed_tokens"]),
        ("mixtral", "num_local_experts", json!(3), &["block_sparse_moe.gate.weight"]),
        ("qwen3-moe", "num_local_experts", json!(64), &["mlp.gate.weight"]),
        ("qwen3-moe", "num_experts", json!(64), &["num_experts", "64"]),
        ("qwen3-moe", "moe_intermediate_size", json!(16), &["gate_proj.weight"]),
        ("llama2", "num_experts", json!(8), &["num_experts"]),
        ("qwen3", "n_routed_experts", json!(8), &["n_routed_experts"]),
        ("deepseek-v3", "n_routed_experts", json!(64), &["mlp.gate", "[64]"]),
        ("deepseek-v3", "n_shared_experts", json!(3), &["shared_experts"]),
        ("deepseek-v3", "n_shared_experts", json!(0), &["n_shared_experts", "mlp.shared_experts."]),
        ("llama2", "attention_bias", json!(true), &["attention_bias", "lacks", Q_BIAS]),
        ("qwen3", "attention_bias", json!(true), &["attention_bias", "lacks", Q_BIAS]),
        ("llama2", "mlp_bias", json!(true), &["mlp_bias", "lacks", "gate_proj.bias"]),
        ("deepseek-v2-lite", "attention_bias", json!(true), &["attention_bias", "lacks"]),
        ("gpt-oss", "attention_bias", json!(false), &["attention_bias", "has", Q_BIAS]),
        ("phimoe", "attention_bias", json!(false), &["attention_bias", "has", Q_BIAS]),
        ("phimoe", "lm_head_bias", json!(false), &["lm_head_bias", "has", "lm_head.bias"]),
        ("qwen2-moe", "qkv_bias", json!(false), &["qkv_bias", "has", Q_BIAS]),
        ("phi2-qk-norm", "qk_layernorm", json!(false), &["q_layernorm"]),
        ("llama2", "tie_word_embeddings", json!("yes"), &["tie_word_embeddings"]),
        ("llama2", "quantization_config", method("gptq"), &["quant_method", "gptq"]),
        ("llama2", "quantization_config", method("awq"), &["quant_method", "awq"]),
        ("llama2", "quantization_config", method("BitsAndBytes"), &["quant_method", "bitsandbytes"]),
        ("llama2", "quantization_config", json!({"load_in_4bit": true}), &["quant_method", "bitsandbytes"]),
        ("llama2", "quantization_config", json!({"bits": 8}), &["quant_method"]),
        ("llama2", "quantization_config", method("fp8"), &["quant_method", "fp8"]),
        ("llama2", "compression_config", method("compressed-tensors"), &["quant_method", "compressed-tensors"]),
        ("mm-qwen3_5", "quantization_config", method("gptq"), &["quant_method", "gptq"]),
        ("gpt-oss", "quantization_config", method("mxfp4"), &["quant_method", "mxfp4"]),
        ("llama2", "max_position_embeddings", json!(0), &["max_position_embeddings", "0"]),
        ("gemma4", "max_position_embeddings", json!(0), &["max_position_embeddings"]),
        ("llama2", "max_position_embeddings", json!(-1), &["max_position_embeddings", "-1"]),
        ("llama2", "max_position_embeddings", json!(1e30), &["max_position_embeddings", "1e+30"]),
        ("llama2", "max_position_embeddings", json!(4096.5), &["max_position_embeddings", "4096.5"]),
        ("llama2", "rope_theta", json!("fast"), &["rope_theta", "fast"]),
        ("llama2", "rms_norm_eps", json!("1e-5"), &["rms_norm_eps", "\"1e-5\""]),
        ("llama2", "rms_norm_eps", json!(-1e-5), &["rms_norm_eps", "-1e-5"]),
        ("llama2", "rms_norm_eps", json!(1e300), &["rms_norm_eps", "1e+300"]),
        ("llama2", "rms_norm_eps", json!(true), &["rms_norm_eps", "true"]),
        ("phi2", "layer_norm_eps", json!(-1.0), &["layer_norm_eps", "-1"]),
        ("gemma4", "rms_norm_eps", json!([1e-6]), &["rms_norm_eps"]),
        ("llama2", "rms_norm_eps", Value::Null, &["rms_norm_eps", "null"]),
    ];
    for (name, key, value, expected) in cases {
        let folder = Fixture::load(name).changed(set(key, value.clone()));
        assert_refused(&format!("{name} with {key} {value}"), folder.path(), expected);
    }
    let llama = Fixture::load("llama2");
    let without = |config: &'static str, tensor: &'static str| {
        llama.edited(set("tie_word_embeddings", json!(config == "tied")), move |t| drop(t.remove(tensor).expect("it")))
    };
    let path = without("untied", "lm_head.weight");
    assert_refused("no head", path.path(), &["tie_word_embeddings", "lm_head.weight"]);
    assert_refused("no embedding", without("untied", "model.embed_tokens.weight").path(), &["embed_tokens.weight"]);
    // Llama's configuration ties nothing unless it says so.
    let silent = llama.edited(
        |c| drop(c.as_object_mut().expect("an object").remove("tie_word_embeddings")),
        |t| drop(t.remove("model.embed_tokens.weight").expect("it")),
    );
    assert_refused("no embedding", silent.path(), &["tie_word_embeddings", "embed_tokens.weight"]);
    let folder = llama.edited(|_| {}, |t| drop(t.insert("lm_head.bias".into(), Stored::zeros(&[320]))));
    assert_refused("a bias of the head", folder.path(), &["lm_head.bias"]);
    let folder = llama.edited(|_| {}, |t| drop(t.insert("lm_head.weight".into(), Stored::zeros(&[256, 96]))));
    assert_refused("a short head", folder.path(), &["lm_head.weight", "[256, 96]", "[320, 96]"]);
    let folder =
        llama.edited(|_| {}, |t| drop(t.insert("model.layers.0.self_attn.q_proj.bias".into(), Stored::zeros(&[96]))));
    assert_refused("a bias", folder.path(), &["attention_bias", "has", Q_BIAS]);
    let folder =
        llama.edited(|_| {}, |t| drop(t.insert("model.layers.1.self_attn.q_norm.weight".into(), Stored::zeros(&[16]))));
    assert_refused("a norm", folder.path(), &["model.layers.1.self_attn.q_norm.weight"]);
}

/// Blocks that predict tokens further ahead lie behind the layers, whether the configuration counts them or not.
#[test]
fn predicting_blocks_are_passed_over() {
    let fixture = Fixture::load("deepseek-v3");
    let block = |name: &'static str| {
        move |t: &mut Tensors| drop(t.insert(format!("model.layers.3.{name}"), Stored::zeros(&[64])))
    };
    let counted = set("num_nextn_predict_layers", json!(1));
    for folder in [fixture.edited(counted, block("mlp.x.weight")), fixture.edited(|_| {}, block("enorm.weight"))] {
        assert_close("with a block", &logits(&fixture, folder.path()), &fixture.logits, TOLERANCE);
    }
    let folder = fixture.edited(|_| {}, block("mlp.x.weight"));
    assert_refused("a fourth layer", folder.path(), &["num_hidden_layers", "model.layers.3.mlp.x.weight"]);
}

/// Python writes `NaN` and `Infinity`, which JSON does not have, and floats where whole numbers are meant.
#[test]
fn json_as_python_writes_it() {
    fn floats(value: &Value) -> String {
        match value {
            Value::Number(n) if n.is_u64() => format!("{n}.0"),
            Value::Array(list) => format!("[{}]", list.iter().map(floats).collect::<Vec<_>>().join(",")),
            Value::Object(map) => {
                let entries: Vec<_> = map.iter().map(|(k, v)| format!("{}:{}", json!(k), floats(v))).collect();
                format!("{{{}}}", entries.join(", "))
            }
            other => other.to_string(),
        }
    }
    for name in ["llama3", "phi3-longrope", "smollm3", "llama4", "deepseek-v3", "gemma3n", "gemma4", "qwen3-sharded"]
        .into_iter()
        .chain(["deepseek-v4", "mm-gemma3", "qwen3_5-moe", "phimoe"])
    {
        let fixture = Fixture::load(name);
        let folder = fixture.changed(|_| {});
        let path = folder.path().join("config.json");
        let config: Value = serde_json::from_slice(&fs::read(&path).expect("config")).expect("JSON");
        let text =
            floats(&config).replacen('{', "{\"time_step_limit\": [0.0, Infinity], \"x\": -Infinity, \"y\": NaN, ", 1);
        fs::write(&path, text).expect("writing");
        let other = "{\"temperature\": NaN, \"eos_token_id\": 2.0}";
        fs::write(folder.path().join("generation_config.json"), other).expect("writing");
        fs::write(folder.path().join("tokenizer_config.json"), "{\"model_max_length\": Infinity}").expect("writing");
        assert_close(name, &logits(&fixture, folder.path()), &fixture.logits, TOLERANCE);
    }
    for word in ["NaN", "Infinity", "-Infinity"] {
        let folder = Fixture::load("llama2").changed(|c| c["rms_norm_eps"] = "WORD".into());
        let path = folder.path().join("config.json");
        let text = fs::read_to_string(&path).expect("config").replace("\"WORD\"", word);
        fs::write(&path, text).expect("writing");
        assert_refused(word, folder.path(), &["rms_norm_eps", word]);
    }
}

/// Some converters write a number as an array with an entry for each layer. Where these are the same it is that number;
/// where they differ and the family has one alone, it is refused.
#[test]
fn arrays_with_an_entry_for_each_layer() {
    let fixture = Fixture::load("llama2");
    let cases: [(&str, u32); 4] = [
        ("attention.head_count", 6),
        ("attention.head_count_kv", 2),
        ("feed_forward_length", 160),
        ("embedding_length", 96),
    ];
    for (key, value) in cases {
        let put = |list: Vec<i32>| fixture.edited_gguf(GgufEdit::put(key, list));
        let v = value as i32;
        let (_temp, path) = put(vec![v; 3]);
        assert_close(key, &logits(&fixture, &path), &fixture.logits, TOLERANCE);
        assert_refused(key, &put(vec![v, v, v + 1]).1, &[key, "differs from layer to layer"]);
        assert_refused(key, &put(vec![v; 2]).1, &[key, "2 entries for 3 layers"]);
        assert_refused(key, &put(vec![-v; 3]).1, &[key, "i32"]);
        let folder = |list: Value| fixture.changed(set("num_key_value_heads", list));
        assert_close("JSON", &logits(&fixture, folder(json!([2, 2, 2])).path()), &fixture.logits, TOLERANCE);
        assert_refused("JSON", folder(json!([2, 1, 2])).path(), &["num_key_value_heads", "differs"]);
    }
    // Windows by layer, as truth values or as numbers; and as what is neither.
    const PATTERN: &str = "attention.sliding_window_pattern";
    let fixture = Fixture::load("ministral");
    let spellings: [MetaValue; 3] =
        [vec![0u32, 1, 1, 1].into(), vec![0i32, 1, 1, 1].into(), vec![false, true, true, true].into()];
    for spelling in spellings {
        let (_temp, path) = fixture.edited_gguf(GgufEdit::put(PATTERN, spelling));
        assert_close("pattern", &logits(&fixture, &path), &fixture.logits, TOLERANCE);
    }
    let lies: [MetaValue; 5] =
        [vec![1u32; 3].into(), vec!["sliding"; 4].into(), "sliding".into(), true.into(), (-1i32).into()];
    for lie in lies {
        let what = format!("{lie:?}");
        assert_refused(&what, &fixture.edited_gguf(GgufEdit::put(PATTERN, lie)).1, &[PATTERN]);
    }
}

/// GGUF keys that contradict the tensors, or are no numbers.
#[test]
fn gguf_keys_that_lie_are_refused() {
    let fixture = Fixture::load("llama2");
    const EPS: &str = "attention.layer_norm_rms_epsilon";
    let cases: Vec<(&str, MetaValue, &str)> = vec![
        ("block_count", 2u32.into(), "blk.2."),
        ("block_count", 4u32.into(), "blk.3."),
        ("block_count", ((1u64 << 32) + 3).into(), "4294967299"),
        ("context_length", 0u32.into(), "is 0"),
        (EPS, f32::NAN.into(), "NaN"),
        (EPS, f32::NEG_INFINITY.into(), "-inf"),
        (EPS, (-1e-5f32).into(), "-1e-5"),
        (EPS, "1e-5".into(), "a string"),
        ("rope.freq_base", f32::INFINITY.into(), "inf"),
        ("attention.value_length", 8u32.into(), "is 8"),
        ("attention.value_length", (-16i32).into(), "i32 -16"),
    ];
    for (key, value, expected) in cases {
        let (_temp, path) = fixture.edited_gguf(GgufEdit::put(key, value));
        assert_refused(key, &path, &[key, expected]);
    }
    let vocabulary = GgufEdit { drop: &["tokenizer.ggml.tokens"], ..GgufEdit::put("vocab_size", 321u32) };
    assert_refused("rows", &fixture.edited_gguf(vocabulary).1, &["vocab_size", "321", "token_embd.weight"]);
    let norm = GgufEdit { zeros: &[("blk.0.attn_q_norm.weight", &[16])], ..GgufEdit::default() };
    assert_refused("a norm", &fixture.edited_gguf(norm).1, &["blk.0.attn_q_norm.weight"]);
}
