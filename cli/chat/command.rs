//! What a line of a chat means: a message, or a command that begins with a slash.

/// A line of a chat.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// A message to the model.
    Message(String),
    /// A command.
    Command(Command),
    /// Nothing.
    Empty,
    /// A command that is none, with what is wrong.
    Wrong(String),
}

/// The commands of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Set the system message; without a text, show it.
    System(Option<String>),
    /// Forget all messages but the system message.
    Reset,
    /// Write the conversation to a file.
    Save(String),
    /// Read one from a file.
    Load(String),
    /// Take back the last message and its answer.
    Undo,
    /// Answer the last message once more.
    Regen,
    /// Set a parameter; without one, show all.
    Set(Option<(String, String)>),
    /// Show counts and times.
    Stats,
    /// List the commands.
    Help,
    /// End the chat.
    Exit,
}

/// The list that `/help` shows: usage and effect.
pub const COMMANDS: &[(&str, &str)] = &[
    ("/system [TEXT]", "set the system message, or show it; /system - removes it"),
    ("/reset", "forget all messages but the system message"),
    ("/save FILE", "write the conversation as JSON, as handmill render reads it"),
    ("/load FILE", "go on with the conversation in a file; a question at its end is answered"),
    ("/undo", "take back the last message and its answer"),
    ("/regen", "answer the last message once more, with other random numbers"),
    ("/set [NAME VALUE]", "set a parameter of the choice of tokens, or show all"),
    ("/stats", "counts and times of the last answer"),
    ("/help", "this list"),
    ("/exit", "end (also Ctrl-D)"),
];

/// Reads a line that a user entered. A message that begins with a slash is written with two.
pub fn parse(line: &str) -> Line {
    let text = unquoted(line);
    if text.trim().is_empty() {
        return Line::Empty;
    }
    let Some(command) = text.trim_start().strip_prefix('/') else { return Line::Message(text) };
    if let Some(message) = command.strip_prefix('/') {
        return Line::Message(format!("/{message}"));
    }
    let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let rest = rest.trim();
    // A path such as /etc/hosts begins a message.
    if name.contains('/') {
        return Line::Message(text);
    }
    let some = (!rest.is_empty()).then(|| rest.to_owned());
    let file = |make: fn(String) -> Command| match some.clone() {
        Some(path) => Line::Command(make(path)),
        None => Line::Wrong(format!("/{name} needs the name of a file")),
    };
    let alone = |command| match &some {
        None => Line::Command(command),
        Some(rest) => Line::Wrong(format!("/{name} takes nothing, and here follows {rest:?}")),
    };
    match name {
        "system" => Line::Command(Command::System(some)),
        "reset" | "clear" => alone(Command::Reset),
        "save" => file(Command::Save),
        "load" => file(Command::Load),
        "undo" => alone(Command::Undo),
        "regen" => alone(Command::Regen),
        "set" => match some.as_deref().map(|pair| pair.split_once([' ', '='])) {
            None => Line::Command(Command::Set(None)),
            Some(Some((name, value))) => {
                Line::Command(Command::Set(Some((name.trim().to_owned(), value.trim().to_owned()))))
            }
            Some(None) => Line::Wrong("write it as /set NAME VALUE; /set alone shows all".to_owned()),
        },
        "stats" => alone(Command::Stats),
        "help" | "?" => alone(Command::Help),
        "exit" | "quit" | "bye" => alone(Command::Exit),
        _ => Line::Wrong(format!(
            "there is no command /{name}; /help lists them, and a message with a slash in front is written //"
        )),
    }
}

/// Whether a message goes on behind this line: it ends with a backslash, or has begun with three quotation marks that
/// have not been closed.
pub fn goes_on(text: &str) -> bool {
    match text.trim_start().strip_prefix("\"\"\"") {
        Some(rest) => !rest.contains("\"\"\""),
        None => text.ends_with('\\'),
    }
}

/// The message without the marks that let it have several lines.
fn unquoted(text: &str) -> String {
    match text.trim().strip_prefix("\"\"\"") {
        Some(rest) => rest.split("\"\"\"").next().unwrap_or_default().trim_matches('\n').to_owned(),
        None => text.replace("\\\n", "\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_messages_or_commands() {
        let message = |text: &str| Line::Message(text.to_owned());
        assert_eq!(parse("hello /help"), message("hello /help"));
        assert_eq!(parse("//help"), message("/help"));
        assert_eq!(parse("/etc/hosts is what?"), message("/etc/hosts is what?"));
        assert_eq!(parse("a\\\nb"), message("a\nb"));
        assert_eq!(parse("\"\"\"\n a\n/help\n\"\"\""), message(" a\n/help"));
        assert_eq!(parse("  \n"), Line::Empty);
        assert_eq!(parse("/system  be brief "), Line::Command(Command::System(Some("be brief".to_owned()))));
        assert_eq!(parse("/system"), Line::Command(Command::System(None)));
        assert_eq!(parse(" /bye"), Line::Command(Command::Exit));
        for pair in ["/set temp 0.5", "/set temp=0.5", "/set  temp = 0.5"] {
            let Line::Command(Command::Set(Some((name, value)))) = parse(pair) else { panic!("{pair}") };
            assert_eq!((name.as_str(), value.trim_start_matches(['=', ' '])), ("temp", "0.5"), "{pair}");
        }
    }

    #[test]
    fn wrong_commands_say_what_is_wrong() {
        for line in ["/nonsense", "/save", "/load ", "/undo all", "/set temp", "/"] {
            assert!(matches!(parse(line), Line::Wrong(_)), "{line}");
        }
    }

    #[test]
    fn every_command_of_the_list_is_one() {
        for (usage, _) in COMMANDS {
            let line = usage.replace("[TEXT]", "x").replace("[NAME VALUE]", "temp 1").replace("FILE", "x.json");
            assert!(matches!(parse(&line), Line::Command(_)), "{line}");
        }
    }

    #[test]
    fn a_message_may_have_several_lines() {
        assert!(goes_on("a\\") && goes_on("\"\"\"a") && goes_on("\"\"\"a\nb\\"));
        assert!(!goes_on("a") && !goes_on("\"\"\"a\nb\"\"\"") && !goes_on(""));
    }
}
