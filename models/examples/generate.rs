//! Opens a model file and streams the continuation of a prompt: `generate MODEL PROMPT`.

use std::{io::Write, ops::ControlFlow};

use handmill_models::{Engine, EngineOptions, Error, GenerateOptions, Model};

fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or_else(|| "model.gguf".into());
    let prompt = args.next().unwrap_or_else(|| "The capital of France is".into());
    let model = Model::open(path.as_ref())?;
    let ids = model.tokenizer()?.encode(&prompt, true, false)?;
    let mut engine = Engine::new(&model, &EngineOptions::default())?;
    let options = GenerateOptions { max_tokens: Some(64), ..Default::default() };
    let stats = engine.generate(&ids, &options, |text| {
        print!("{text}");
        let _ = std::io::stdout().flush();
        ControlFlow::Continue(())
    })?;
    eprintln!("\n{:.1} tokens/s, prompt {:.1} tokens/s", stats.generation_rate(), stats.prompt_rate());
    Ok(())
}
