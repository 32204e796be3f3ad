//! Runs the built `handmill` and makes small files for it.
#![allow(dead_code, reason = "each test file uses its own share")]

pub mod server;
pub mod serving;

use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A small checkpoint of the repository's own.
pub fn fixture(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/families", name].iter().collect();
    path.to_str().expect("UTF-8").to_owned()
}

/// A copy of its folder, to be changed.
pub fn copy(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture(name)).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

/// A command line of the program under test.
pub struct Handmill {
    command: Command,
    stdin: Vec<u8>,
    open: bool,
}

/// What a run gave.
#[derive(Debug)]
pub struct Answer {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Handmill {
    pub fn new() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_handmill"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Nothing of the environment of whoever runs the tests decides here.
        for name in ["HF_TOKEN", "HF_ENDPOINT", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HANDMILL_CPU"] {
            command.env_remove(name);
        }
        Self { command, stdin: Vec::new(), open: false }
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// With nothing in the environment but what every user has.
    pub fn bare(mut self) -> Self {
        self.command.env_clear();
        for name in ["HOME", "PATH"] {
            self.command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        self
    }

    /// With that working directory.
    pub fn folder(mut self, path: &std::path::Path) -> Self {
        self.command.current_dir(path);
        self
    }

    /// Standard input stays open in [`Running::child`], with nothing to read.
    pub fn open_stdin(mut self) -> Self {
        self.open = true;
        self
    }

    pub fn stdin(mut self, bytes: &[u8]) -> Self {
        self.stdin = bytes.to_vec();
        self
    }

    pub fn stdout(mut self, to: impl Into<Stdio>) -> Self {
        self.command.stdout(to);
        self
    }

    pub fn start(mut self, args: &[&str]) -> Running {
        #[cfg(windows)]
        {
            // A group of its own, which Ctrl-Break can be sent to.
            const CREATE_NEW_PROCESS_GROUP: u32 = 0x200;
            std::os::windows::process::CommandExt::creation_flags(&mut self.command, CREATE_NEW_PROCESS_GROUP);
        }
        let mut child = self.command.args(args).spawn().expect("the built program starts");
        if !self.open {
            // A program that does not read its input closes the pipe; that is its right.
            let _ = child.stdin.take().expect("piped").write_all(&self.stdin);
        }
        Running { child }
    }

    pub fn run(self, args: &[&str]) -> Answer {
        self.start(args).wait()
    }
}

/// A run under way.
pub struct Running {
    pub child: Child,
}

impl Running {
    /// Sends what Ctrl-C sends; on Windows what Ctrl-Break sends, because Ctrl-C goes to all processes of a console.
    pub fn interrupt(&self) {
        #[cfg(not(windows))]
        self.signal("INT");
        #[cfg(windows)]
        {
            use windows_sys::Win32::System::Console::{CTRL_BREAK_EVENT, GenerateConsoleCtrlEvent};
            // SAFETY: no memory is passed.
            assert_ne!(unsafe { GenerateConsoleCtrlEvent(CTRL_BREAK_EVENT, self.child.id()) }, 0);
        }
    }

    /// Sends a signal.
    #[cfg(not(windows))]
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()));
    }

    pub fn wait(self) -> Answer {
        let output = self.child.wait_with_output().expect("the program ends");
        Answer {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("UTF-8 on standard output"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8 on standard error"),
        }
    }
}

impl Answer {
    #[track_caller]
    pub fn assert_ok(&self) {
        assert_eq!(self.code, Some(0), "stderr: {}", self.stderr);
    }

    /// The exit code, nothing on standard output, and one line `error: …` that contains `text`.
    #[track_caller]
    pub fn assert_failed(&self, code: i32, text: &str) {
        assert_eq!(self.code, Some(code), "stderr: {}", self.stderr);
        assert_eq!(self.stdout, "");
        let errors: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(errors.len() == 1 && errors[0].contains(text), "wanted {text:?} in: {}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        self.assert_ok();
        serde_json::from_str(&self.stdout).expect("JSON on standard output")
    }
}

/// Waits until something is so, for at most 20 s.
#[track_caller]
pub fn wait_for(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "it did not happen within 20 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A GGUF file without tensors, of an architecture that nobody has heard of, with `padding` bytes of metadata.
pub fn tiny_gguf(padding: usize) -> Vec<u8> {
    let numbers: Vec<u8> = (0..padding).map(|i| b'a' + (i * i / 7 % 26) as u8).collect();
    gguf(&[("general.architecture", b"unheard-of"), ("general.description", &numbers)])
}

/// A GGUF file without tensors, with these texts as metadata.
pub fn gguf(texts: &[(&str, &[u8])]) -> Vec<u8> {
    let string = |text: &[u8]| [&(text.len() as u64).to_le_bytes(), text].concat();
    let mut file = b"GGUF".to_vec();
    file.extend(3u32.to_le_bytes());
    file.extend(0u64.to_le_bytes());
    file.extend((texts.len() as u64).to_le_bytes());
    for (key, value) in texts {
        file.extend([string(key.as_bytes()), 8u32.to_le_bytes().to_vec(), string(value)].concat());
    }
    file
}

/// A safetensors file with one f32 tensor of two elements.
pub fn tiny_safetensors(name: &str) -> Vec<u8> {
    let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}}}"#);
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend([0; 8]);
    file
}
