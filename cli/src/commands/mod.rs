//! One command a file.

mod bake;
mod build;
mod builds;
mod cancel;
mod check;
mod download;
mod engine;
mod find;
mod input;
mod logs;
mod needless;
mod options;
mod outputs;
mod plan;
mod prepare;
mod projects;
mod purge;
mod repositories;
mod request;
mod retry;
mod run;
mod show;
mod source;
mod why;
mod workers;

pub(crate) use run::run;
