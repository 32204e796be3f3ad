//! Options as other programs spell them: the words of the command line are rewritten before clap reads them.
//!
//! [`TABLE`] has the options of llama.cpp's tools and of Ollama's command that people type from habit. Each is another spelling of an option here, or has no meaning here: then a line says so, or it is refused. A word
//! is rewritten only where the subcommand has the option that it stands for, and does not itself have the word as an option
//! of its own. Nothing is rewritten after `--`, nor where a word is the value of an option.

mod table;

use crate::error::CliError;
use clap::{Arg, ArgAction, Command};
use std::ffi::{OsStr, OsString};
use table::{
    Meaning::{Hub, HubFile, Ignored, Is, Model, Refused},
    Spelling, TABLE,
    Takes::{OneOf, Value},
};

/// Rewritten words, and lines about those that have no effect.
#[derive(Debug, Default, PartialEq)]
pub struct Words {
    pub words: Vec<OsString>,
    pub notes: Vec<String>,
}

/// Rewrites the words of a command line, the program's own name before them, for `command`, which is the whole command.
///
/// # Errors
/// Usage errors: options that are refused or lack their value, and two models.
pub fn rewrite(words: impl IntoIterator<Item = OsString>, mut command: Command) -> Result<Words, CliError> {
    command.build();
    let mut words: Vec<OsString> = words.into_iter().collect();
    // llama.cpp has no subcommands: what it would answer is `run` here.
    let is_theirs = |word: &OsString| {
        let glued = split(word);
        let name = glued.as_ref().map_or(&**word, |(name, _)| OsStr::new(name));
        own(&command, name).is_none() && find(name).is_some()
    };
    if words.get(1).is_some_and(is_theirs) {
        words.insert(1, "run".into());
    }
    let sub = words.get(1).and_then(|name| command.find_subcommand(name));
    let Some(sub) = sub else { return Ok(Words { words, notes: Vec::new() }) };
    let mut line = Line::new(sub);
    let mut rest = words.split_off(2).into_iter();
    while let Some(word) = rest.next() {
        if word == "--" {
            line.out.push(word);
            line.out.extend(rest);
            break;
        }
        line.word(word, &mut rest)?;
    }
    let mut notes = line.notes;
    notes.dedup();
    let model = model(line.model, line.hub, line.hub_file)?;
    Ok(Words { words: words.into_iter().chain(model).chain(line.out).collect(), notes })
}

/// The model that the options name, to go before all other words.
fn model(path: Option<OsString>, hub: Option<String>, file: Option<String>) -> Result<Option<OsString>, CliError> {
    let wrong = |text: &str| Err(CliError::Usage(text.to_owned()));
    match (path, hub, file) {
        (None, None, None) => Ok(None),
        (Some(path), None, None) => Ok(Some(path)),
        (None, Some(hub), None) => Ok(Some(format!("hf:{hub}").into())),
        // The file says more than the kind of quantisation.
        (None, Some(hub), Some(file)) => {
            Ok(Some(format!("hf:{}:{file}", hub.split(':').next().unwrap_or(&hub)).into()))
        }
        (Some(_), Some(_), _) => wrong("-m and -hf name two models; give one"),
        (_, None, Some(_)) => wrong("-hff names a file of a repository; -hf must name the repository"),
    }
}

/// A command line under way.
struct Line<'a> {
    sub: &'a Command,
    out: Vec<OsString>,
    notes: Vec<String>,
    model: Option<OsString>,
    hub: Option<String>,
    hub_file: Option<String>,
}

impl<'a> Line<'a> {
    fn new(sub: &'a Command) -> Self {
        Self { sub, out: Vec::new(), notes: Vec::new(), model: None, hub: None, hub_file: None }
    }

    /// Takes one word, and the next one where that is its value.
    fn word(&mut self, word: OsString, rest: &mut std::vec::IntoIter<OsString>) -> Result<(), CliError> {
        let glued = split(&word);
        let name = glued.as_ref().map_or(&*word, |(name, _)| OsStr::new(name));
        let own = own(self.sub, name);
        let Some(spelling) = find(name).filter(|spelling| self.applies(spelling, own)) else {
            let takes = glued.is_none() && own.is_some_and(needs_value);
            self.out.push(word);
            self.out.extend(takes.then(|| rest.next()).flatten());
            return Ok(());
        };
        let name = name.to_string_lossy().into_owned();
        let next = rest.as_slice().first();
        let value = match (glued, spelling.value) {
            (Some((_, value)), _) => Some(value.into()),
            (None, Value) => {
                Some(rest.next().ok_or_else(|| CliError::Usage(format!("a value is required behind {name}")))?)
            }
            (None, OneOf(all)) if next.is_some_and(|next| all.iter().any(|one| next == *one)) => rest.next(),
            (None, _) => None,
        };
        self.take(&name, spelling, value)
    }

    /// Whether the spelling means something in this subcommand, and `own`, its option of that name, does not mean another.
    fn applies(&self, spelling: &Spelling, own: Option<&Arg>) -> bool {
        match spelling.meaning {
            Is(target, _) => {
                let target = self::own(self.sub, OsStr::new(target));
                target.is_some() && own.is_none_or(|own| target.is_some_and(|target| target.get_id() == own.get_id()))
            }
            Model | Hub | HubFile => own.is_none() && self.sub.get_positionals().any(|arg| arg.get_id() == "model"),
            // These are about running a model.
            Ignored(_) | Refused(_) => {
                own.is_none() && self.sub.get_arguments().any(|arg| arg.get_long() == Some("backend"))
            }
        }
    }

    /// Takes an option without a value.
    fn switch(&mut self, option: &str) -> Result<(), CliError> {
        self.out.push(option.into());
        Ok(())
    }

    fn take(&mut self, name: &str, spelling: &Spelling, value: Option<OsString>) -> Result<(), CliError> {
        let text = |value: Option<OsString>| value.unwrap_or_default().to_string_lossy().into_owned();
        match spelling.meaning {
            Is(target, change) => {
                let changed = match value.as_deref().map(OsStr::to_str) {
                    None => return self.switch(target),
                    Some(Some(text)) => change(text).map(OsString::from),
                    Some(None) => value,
                };
                let glue =
                    |value: OsString| [OsStr::new(target), OsStr::new("="), &value].into_iter().collect::<OsString>();
                // One word, so that a value may begin with a dash. Two spellings of one option that agree are one.
                let arg = own(self.sub, OsStr::new(target));
                let once = arg.is_some_and(|arg| matches!(arg.get_action(), ArgAction::Set));
                let word = changed.map(glue).filter(|word| !once || !self.out.contains(word));
                self.out.extend(word);
            }
            Model if self.model.is_some() => return Err(CliError::Usage(format!("{name} names a second model"))),
            Model => self.model = value.map(not_an_option),
            Hub => self.hub = Some(text(value)),
            HubFile => self.hub_file = Some(text(value)),
            Ignored(why) => self.notes.push(format!("{name} is ignored: {why}")),
            Refused(why) => return Err(CliError::Usage(format!("{name} is not available: {why}"))),
        }
        Ok(())
    }
}

/// A path that begins with a dash, as one that does not.
fn not_an_option(path: OsString) -> OsString {
    if !path.as_encoded_bytes().starts_with(b"-") {
        return path;
    }
    let mut whole = OsString::from("./");
    whole.push(path);
    whole
}

/// Name and value of `--name=value`.
fn split(word: &OsStr) -> Option<(String, String)> {
    let (name, value) = word.to_str().filter(|word| word.starts_with("--"))?.split_once('=')?;
    Some((name.to_owned(), value.to_owned()))
}

fn find(name: &OsStr) -> Option<&'static Spelling> {
    TABLE.iter().find(|spelling| spelling.names.iter().any(|one| name == *one))
}

/// The option of a subcommand that a word names, without a value glued to it.
fn own<'a>(command: &'a Command, word: &OsStr) -> Option<&'a Arg> {
    let word = word.to_str()?;
    command.get_arguments().find(|arg| match word.strip_prefix("--") {
        Some(long) => arg.get_long_and_visible_aliases().is_some_and(|all| all.contains(&long)),
        None => arg.get_short().is_some_and(|short| word.chars().eq(['-', short])),
    })
}

/// Whether the word behind an option is its value, whatever it looks like.
fn needs_value(arg: &Arg) -> bool {
    arg.get_num_args().is_some_and(|n| n.min_values() > 0) && arg.get_action().takes_values()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn rewritten(line: &str) -> Result<Words, CliError> {
        let words = line.split(' ').map(|word| word.replace('_', " "));
        rewrite(["handmill".to_owned()].into_iter().chain(words).map(OsString::from), crate::Cli::command())
    }

    /// Words after the program's name, joined.
    fn words(line: &str) -> String {
        let words = rewritten(line).unwrap_or_else(|error| panic!("{line}: {error}")).words;
        words[1..].iter().map(|word| word.to_string_lossy().replace(' ', "_")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn peers_spellings_become_ours() {
        for (theirs, ours) in [
            ("run -m x.gguf -p Hi", "run x.gguf -p Hi"),
            ("-m x.gguf -p Hi", "run x.gguf -p Hi"),
            ("run --model=x.gguf -p Hi", "run x.gguf -p Hi"),
            ("run -p Hi --model x.gguf", "run x.gguf -p Hi"),
            ("run -m -x.gguf", "run ./-x.gguf"),
            ("run -hf own/name -p Hi", "run hf:own/name -p Hi"),
            ("run -hfr own/name:Q8", "run hf:own/name:Q8"),
            ("run --hf-repo own/name:Q8 --hf-file x.gguf", "run hf:own/name:x.gguf"),
            ("run -c 4096", "run --ctx=4096"),
            ("run --ctx-size=4096", "run --ctx=4096"),
            ("run -c 0", "run --ctx=model"),
            ("run -t 4 -ngl 99", "run --threads=4 --gpu-layers=99"),
            ("run -t -1 -ngl -1 --n-gpu-layers all --gpu-layers auto", "run"),
            ("run --gpu-layers 3 --threads 2", "run --gpu-layers=3 --threads=2"),
            ("run -n 5", "run --max-tokens=5"),
            ("run -n -1", "run --max-tokens=all"),
            ("run --n-predict -2", "run --max-tokens=all"),
            ("run --seed -1", "run"),
            ("run -s 7", "run --seed=7"),
            ("run --seed=7", "run --seed=7"),
            (
                "run --temp 0.5 --top-p 0.9 --min-p 0.1 --repeat-penalty 1.1",
                "run --temp 0.5 --top-p 0.9 --min-p 0.1 --repeat-penalty 1.1",
            ),
            ("run --top-k -1", "run --top-k=0"),
            (
                "run -l 15+1 -l 15-inf --logit-bias 3=-2 -l 4=false",
                "run --logit-bias=15=+1 --logit-bias=15=-inf --logit-bias=3=-2 --logit-bias=4=-inf",
            ),
            ("run -r -", "run --stop=-"),
            ("run -dev 1 -cmoe", "run --device=1 --experts-on-cpu"),
            ("run -ctk f16", "run --kv-type=f16"),
            ("run --cache-type-v q8_0", "run --kv-type=q8_0"),
            ("run -ctk q8_0 -ctv q8_0", "run --kv-type=q8_0"),
            ("perplexity -m x.gguf -f t.txt -c 512", "perplexity x.gguf -f t.txt --ctx=512"),
            ("tokenize -m x.gguf Hi", "tokenize x.gguf Hi"),
            (
                "serve -m x.gguf -a small -np 4 --embedding -c 512",
                "serve x.gguf --alias=small --parallel=4 --embeddings --ctx=512",
            ),
            ("serve -m x.gguf --host 0.0.0.0 --port 1 --api-key k", "serve x.gguf --host 0.0.0.0 --port 1 --api-key k"),
            // Own meanings of the same words.
            ("bench -m x.gguf -p 512 -n 128 -r 3", "bench x.gguf -p 512 -n 128 -r 3"),
        ] {
            assert_eq!(words(theirs), ours, "{theirs}");
        }
    }

    #[test]
    fn values_and_words_behind_two_dashes_stay() {
        for line in [
            "run -p -c",
            "run -p -_item",
            "run --prompt -m --stop -n",
            "run --file -c",
            "run -p Hi -- -c 5",
            "tokenize x -c",
            "tokenize x -e",
            "inspect x",
            "no-such-command -m x",
            "--help",
            "--version",
        ] {
            assert_eq!(words(line), line);
        }
    }

    #[test]
    fn options_without_a_meaning_say_so() {
        let noted = rewritten("run x -fa on -fa --no-mmap -b 512 --jinja -p Hi").unwrap();
        assert_eq!(noted.words, ["handmill", "run", "x", "-p", "Hi"]);
        assert_eq!(noted.notes.len(), 4, "{:?}", noted.notes);
        assert!(noted.notes[0].starts_with("-fa is ignored: "), "{:?}", noted.notes);
        for (line, name) in [
            ("run x --mirostat 2", "--mirostat is not available"),
            ("run x --grammar=root", "--grammar is not available"),
            ("run x --lora a.gguf", "--lora is not available"),
            ("run -m a -m b", "-m names a second model"),
            ("run -m a -hf own/name", "two models"),
            ("run -hff x.gguf", "-hf must name"),
            ("run -m", "behind -m"),
            ("run -c", "behind -c"),
        ] {
            let error = rewritten(line).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(name), "{line}: {error}");
        }
    }

    #[test]
    fn the_table_has_each_name_once() {
        let mut seen = std::collections::HashSet::new();
        for spelling in TABLE {
            assert!(
                spelling.names.iter().all(|name| name.starts_with('-') && seen.insert(*name)),
                "{:?}",
                spelling.names
            );
        }
    }
}
