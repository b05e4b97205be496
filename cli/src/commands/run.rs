//! Choosing the command and the farm.

use std::process::ExitCode;

use client::public::Client;

use super::{bake, build, builds, cancel, logs, plan, projects, purge, retry, show, why, workers};
use crate::args::{Arguments, Command, Server};
use crate::exit::CliError;
use crate::up::{self, Place};

/// Where a coordinator listens when nobody says otherwise.
const DEFAULT_SERVER: &str = "http://127.0.0.1:7878";

/// Runs a command.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, CliError> {
    let server = arguments.server;
    match arguments.command {
        Command::Up(arguments) => up::run(&arguments).await,
        // Needs to be the only thread: main runs it.
        Command::Worker { config } => up::work(&config),
        Command::Build(arguments) => {
            build::run(&client_for_builds(&server).await?, &arguments).await
        }
        Command::Bake(arguments) => {
            let bake = bake::read(&arguments)?;
            if arguments.print {
                return Ok(bake::print(&bake));
            }
            bake::run(&client_for_builds(&server).await?, &arguments, &bake).await
        }
        Command::Plan(arguments) => plan::run(&connect(&server), &arguments).await,
        Command::Why { build, json } => why::run(&connect(&server), &build, json).await,
        Command::Show { build, json } => show::run(&connect(&server), &build, json).await,
        Command::Logs { build, follow, stage } => {
            logs::run(&connect(&server), &build, follow, stage.as_deref()).await
        }
        Command::Cancel { build } => cancel::run(&connect(&server), &build).await,
        Command::Retry { build, progress } => retry::run(&connect(&server), &build, progress).await,
        Command::Purge { build } => purge::run(&connect(&server), &build).await,
        Command::Projects { command } => projects::run(&connect(&server), command.as_ref()).await,
        Command::Builds => builds::run(&connect(&server)).await,
        Command::Workers => workers::run(&connect(&server)).await,
    }
}

/// A client of the farm that builds here, which may be started for that.
async fn client_for_builds(server: &Server) -> Result<Client, CliError> {
    Ok(match farm_for_builds(server).await? {
        Some(place) => Client::new(&place.server, Some(&place.token)),
        None => connect(server),
    })
}

/// A client of the named farm; else of the one that runs on this machine.
fn connect(server: &Server) -> Client {
    let place = Place::read(&up::default_directory());
    let here = place.filter(|place| {
        server.server.as_ref().is_none_or(|named| named.trim_end_matches('/') == place.server)
    });
    let address = server.server.as_deref().or(here.as_ref().map(|place| place.server.as_str()));
    let token = server.token.as_deref().or(here.as_ref().map(|place| place.token.as_str()));
    Client::new(address.unwrap_or(DEFAULT_SERVER), token)
}

/// Where nobody named a farm and none answers, offers to start one here.
async fn farm_for_builds(server: &Server) -> Result<Option<Place>, CliError> {
    if server.server.is_some() || Place::read(&up::default_directory()).is_some() {
        return Ok(None);
    }
    let address = DEFAULT_SERVER.trim_start_matches("http://");
    if tokio::net::TcpStream::connect(address).await.is_ok() {
        return Ok(None);
    }
    up::offer_to_start().await
}
