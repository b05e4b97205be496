//! Builds to run while things die.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::Farm;

/// What a build is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Three stages, each from the one before.
    Chain,
    /// Three stages side by side, and one that copies out of all of them.
    FanOut,
    /// A stage that starts before the one it copies from has ended.
    Parked,
    /// A command that fails.
    Failing,
    /// An image that is pushed.
    Pushed,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Chain, Self::FanOut, Self::Parked, Self::Failing, Self::Pushed];

    /// The exit code that the build has to have.
    pub const fn code(self) -> i32 {
        match self {
            Self::Failing => 1,
            Self::Chain | Self::FanOut | Self::Parked | Self::Pushed => 0,
        }
    }

    /// The Dockerfile; builds with the same salt are alike. Each of its longer steps takes `secs`.
    pub fn dockerfile(self, salt: &str, secs: f64) -> String {
        let work = |name: &str| {
            format!("RUN echo begin-{name} {salt}; sleep {secs}; echo {name} {salt} > /{name}\n")
        };
        match self {
            Self::Chain => format!(
                "FROM alpine AS a\n{}FROM a AS b\n{}FROM b\n{}RUN cat /one /two /three\n",
                work("one"),
                work("two"),
                work("three")
            ),
            Self::FanOut => format!(
                "FROM alpine AS a\n{}FROM alpine AS b\n{}FROM alpine AS c\n{}\
                 FROM alpine\nCOPY --from=a /one /\nCOPY --from=b /two /\nCOPY --from=c /three /\n\
                 RUN cat /one /two /three\n",
                work("one"),
                work("two"),
                work("three")
            ),
            Self::Parked => format!(
                "FROM alpine AS a\n{}FROM alpine\nRUN echo early {salt} > /early\n\
                 COPY --from=a /one /\nRUN cat /early /one\n",
                work("one")
            ),
            Self::Failing => format!("FROM alpine\n{}RUN echo wrong; exit 7\n", work("one")),
            Self::Pushed => {
                format!("FROM alpine\n{}CMD [\"cat\", \"/one\"]\n", work("one"))
            }
        }
    }
}

/// A build that was begun.
#[derive(Debug)]
pub struct Launched {
    /// What it is like.
    pub shape: Shape,
    /// The image's name, if it is pushed.
    pub image: Option<String>,
    child: Child,
    output: PathBuf,
}

/// How a build ended, as the command line saw it.
#[derive(Debug)]
pub struct Ended {
    /// What it is like.
    pub shape: Shape,
    /// The exit code.
    pub code: i32,
    /// What was said.
    pub text: String,
}

impl Ended {
    /// Whether it ended as it should.
    pub fn check(&self) -> anyhow::Result<()> {
        let (shape, code) = (self.shape, self.code);
        anyhow::ensure!(code == shape.code(), "{shape:?} ended with {code}:\n{}", self.text);
        Ok(())
    }
}

impl Farm {
    /// Begins a build.
    pub fn launch(&self, shape: Shape, salt: &str, secs: f64) -> anyhow::Result<Launched> {
        let directory = tempfile::tempdir_in(self.directory())?.keep();
        std::fs::write(directory.join("Dockerfile"), shape.dockerfile(salt, secs))?;
        let output = directory.with_extension("said");
        let file = File::create(&output)?;
        let mut command = self.command()?;
        command.args(["build", "--progress", "plain"]);
        let image = (shape == Shape::Pushed).then(|| format!("{}/{salt}:1", self.registry()));
        if let Some(image) = &image {
            command.args(["--push", "-t", image]);
        }
        command.arg(&directory).stdout(Stdio::null()).stderr(file);
        Ok(Launched { shape, image, child: command.spawn()?, output })
    }
}

impl Launched {
    /// What the command line has said so far.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// Waits until the command line has said something.
    pub fn wait_for(&mut self, words: &str) -> anyhow::Result<()> {
        testkit::wait_for(words, Duration::from_mins(1), || {
            (self.said().contains(words) || matches!(self.child.try_wait(), Ok(Some(_))))
                .then_some(())
        })?;
        anyhow::ensure!(self.said().contains(words), "it ended without {words}: {}", self.said());
        Ok(())
    }

    /// Waits for the end; a build that does not end within the limit is an error.
    pub fn finish(mut self, limit: Duration) -> anyhow::Result<Ended> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                let (shape, text) = (self.shape, self.said());
                return Ok(Ended { shape, code: status.code().unwrap_or(-1), text });
            }
            if start.elapsed() > limit {
                self.child.kill()?;
                self.child.wait()?;
                anyhow::bail!("{:?} hangs:\n{}", self.shape, self.said());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Launched {
    /// A test that fails leaves no client behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
