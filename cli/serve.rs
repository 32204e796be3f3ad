//! `handmill serve`: a model over HTTP.

use crate::{
    args::{COMMON, Compute, Ctx, Rounding, Verbosity},
    error::CliError,
    fetch, input,
    interrupt::Serving,
    render,
    sampling::Sampling,
    session,
    terminal::{always, detail, note},
};
use clap::ValueEnum;
use handmill_models::{EngineOptions, engine::Pooling, text::ChatTemplate};
use handmill_server::{Limits, Log, Scheduler, ServerOptions, Stop};
use std::{
    env,
    ffi::{OsStr, OsString},
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Contexts that the cache holds by default: prompts to come begin with what earlier ones left there.
const CONTEXTS: usize = 2;
/// The variable with a key, which other users of the machine cannot see.
const KEY: &str = "HANDMILL_API_KEY";

/// Arguments of the subcommand.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Ctrl-C and SIGTERM end the server: requests under way are answered first, for --drain seconds at most. \
                  The sampling options say what holds where a request says nothing."
)]
pub struct Args {
    /// Path, hf:owner/name[:file] or alias
    #[arg(default_value = fetch::DEFAULT)]
    model: OsString,
    /// Address to listen on; 0.0.0.0 lets other machines in
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 8080)]
    port: u16,
    /// Key that requests must have (may be given several times); the variable HANDMILL_API_KEY can have one as well
    #[arg(long, value_name = "KEY")]
    api_key: Vec<String>,
    /// Name of the model in answers [default: MODEL, of a path its last part]
    #[arg(long, value_name = "NAME")]
    alias: Option<String>,
    /// Let pages of this origin send requests, like `https://example.org` (may be given several times); `*` lets all do so
    #[arg(long, value_name = "ORIGIN")]
    cors: Vec<String>,
    /// Render messages with the template in this file instead of the model's own
    #[arg(long, value_name = "FILE.jinja", allow_hyphen_values = true, value_parser = input::path())]
    template: Option<PathBuf>,
    /// Most requests that run at once; they share the cache
    #[arg(long, value_name = "N", default_value = "64")]
    parallel: NonZeroUsize,
    /// Most requests that wait; further ones are refused
    #[arg(long, value_name = "N", default_value_t = 512)]
    queue: usize,
    /// Tokens that the cache holds for all requests and prompts to come [default: two contexts, on a GPU one]
    #[arg(long, value_name = "N")]
    cache_tokens: Option<usize>,
    /// Answer /v1/embeddings as well, which costs each step a little
    #[arg(long)]
    embeddings: bool,
    /// How a text's tokens become its vector
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Pool::Last)]
    pooling: Pool,
    /// Seconds that requests under way have to end when the server stops
    #[arg(long, value_name = "S", default_value_t = 30)]
    drain: u64,
    /// What is rounded
    #[command(flatten)]
    rounding: Rounding,
    /// How tokens are chosen
    #[command(flatten)]
    sampling: Sampling,
    /// Context length in tokens of each request; `model` is as long as it was made for [default: that, within 4096 to 32768]
    #[arg(long, value_name = "N|model", value_parser = Ctx::parse, help_heading = COMMON)]
    ctx: Option<Ctx>,
    /// Where it runs
    #[command(flatten)]
    pub compute: Compute,
    /// How much standard error says
    #[command(flatten)]
    pub verbosity: Verbosity,
}

/// Values of `--pooling`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Pool {
    /// That of the last token.
    Last,
    /// The mean of all.
    Mean,
}

impl Args {
    fn keys(&self) -> Result<Vec<String>, CliError> {
        let variable = env::var(KEY).ok().filter(|key| !key.is_empty());
        let keys: Vec<String> = self.api_key.iter().cloned().chain(variable).collect();
        match keys.iter().any(String::is_empty) {
            true => Err(CliError::Usage("--api-key is empty, which would let nobody in".to_owned())),
            false => Ok(keys),
        }
    }

    /// The model's name: a path says no more than its last part.
    fn name(&self) -> String {
        let last = |path: &OsStr| Path::new(path).file_name().filter(|_| Path::new(path).exists()).map(OsStr::to_owned);
        let name = last(&self.model).unwrap_or_else(|| self.model.clone());
        self.alias.clone().unwrap_or_else(|| name.to_string_lossy().into_owned())
    }
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<(), CliError> {
    if args.sampling.is_seeded() {
        return Err(CliError::Usage("--seed has no meaning here: requests have seeds of their own".to_owned()));
    }
    args.sampling.check()?;
    let keys = args.keys()?;
    // An address that is taken should not be found out after a model was opened.
    let failed = |e| CliError::because("could not start the server", e);
    let listener = handmill_server::bind(&args.host, args.port).map_err(failed)?;
    let address = listener.local_addr().map_err(|e| CliError::because("could not start the server", e))?;
    let model = session::model(&args.model)?;
    let own = ChatTemplate::from_checkpoint(model.checkpoint());
    let own = own.map_err(|e| CliError::because("could not read the model's chat template", e))?;
    let template = render::with_file(own, args.template.as_deref())?;
    if template.is_none() {
        note("the model has no chat template, so /v1/chat/completions is refused (--template FILE.jinja gives one)");
    }
    let sampling = args.sampling.params(model.checkpoint(), 0)?;
    let options = EngineOptions {
        n_ctx: args.ctx.map(|ctx| ctx.tokens(&model)),
        cache_tokens: args.cache_tokens,
        hidden: args.embeddings,
        ..EngineOptions::default()
    };
    let engine = session::engine_with(&args.compute, &model, args.rounding, options, CONTEXTS)?;
    let limits = Limits { running: args.parallel.get(), waiting: args.queue };
    let scheduler = Scheduler::start(engine, limits).map_err(failed)?;
    warn_if_open(address, &keys);
    let options = ServerOptions {
        template,
        sampling,
        now: Arc::new(|| render::now().ok()),
        pooling: match args.pooling {
            Pool::Last => Pooling::Last,
            Pool::Mean => Pooling::Mean,
        },
        api_keys: keys,
        cors: args.cors.clone(),
        drain: Duration::from_secs(args.drain),
        log: Arc::new(|event| match event {
            Log::Draining => note(&event.to_string()),
            _ => detail(|| event.to_string()),
        }),
        ..ServerOptions::new(args.name())
    };
    let stop = Stop::default();
    let _serving = Serving::begin({
        let stop = stop.clone();
        move || stop.ask()
    });
    // Whoever started this waits for the line, whatever the level.
    always(&format!("listening on http://{address}"));
    handmill_server::serve(listener, &model, scheduler, options, &stop).map_err(failed)
}

/// A server that others can reach should ask who they are.
fn warn_if_open(address: SocketAddr, keys: &[String]) {
    if !address.ip().is_loopback() && keys.is_empty() {
        always(&format!(
            "WARNING: {address} is not this machine's alone, and there is no key: everybody who reaches it can use the model \
             (--api-key KEY)"
        ));
    }
}
