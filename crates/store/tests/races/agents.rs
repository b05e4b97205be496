//! Messages to agents of clients: who may ask, who is answered, what is left.

use common::outcome::{Failure, FailureClass};
use common::{BuildId, Lease};
use futures_util::future::join_all;
use serde_json::json;
use store::{AgentQuestion, AgentState, Asked, Asker, NewBuild, StoreError, Submitted};
use uuid::Uuid;

use crate::database::{Database, Worker, new_build, stage, succeeded};

/// A running build whose one stage may use the agent `default`, and its lease.
async fn running(database: &Database) -> (BuildId, Worker, Lease) {
    let mut stage = stage("one", 0);
    stage.plan = json!({"agents": ["default"]});
    let id = stage.id;
    let build = database.plan(vec![stage], Vec::new()).await;
    let worker = database.worker("worker").await;
    (build, worker, database.claim(id, worker).await.unwrap())
}

fn question(agent: &str, request: Option<&[u8]>) -> AgentQuestion {
    AgentQuestion {
        id: Uuid::now_v7(),
        agent: agent.to_owned(),
        connection: Uuid::new_v4(),
        request: request.map(<[u8]>::to_vec),
    }
}

#[tokio::test]
async fn a_message_is_given_until_it_is_answered_and_its_answer_once() {
    let database = Database::start().await;
    let store = &database.store;
    let (build, _, lease) = running(&database).await;
    let asked = question("default", Some(b"list"));
    // A call that is repeated, and two at once, are one message.
    let ask = async |_| store.ask_agent(Asker::Lease(lease), &asked).await.unwrap();
    let all = join_all((0..4).map(ask)).await;
    assert_eq!(all, [Asked::Waiting(build); 4]);
    let waiting = store.agent_answer(asked.id).await.unwrap();
    assert!(matches!(waiting, AgentState::Waiting { taken: false, .. }), "{waiting:?}");

    let (given, _) = store.take_agent_messages(build, &[]).await.unwrap();
    assert_eq!(given.len(), 1);
    assert_eq!((given[0].id, given[0].request.as_slice()), (asked.id, &b"list"[..]));
    assert_eq!((given[0].agent.as_str(), given[0].connection), ("default", asked.connection));
    // An answer of the farm may be lost: it is given again to who does not know of it.
    let (again, _) = store.take_agent_messages(build, &[]).await.unwrap();
    assert_eq!(again, given);
    let (others, _) = store.take_agent_messages(build, &[asked.id]).await.unwrap();
    assert_eq!(others, []);
    let waiting = store.agent_answer(asked.id).await.unwrap();
    assert!(matches!(waiting, AgentState::Waiting { taken: true, .. }), "{waiting:?}");

    // Of several clients the first one counts.
    let answer = async |text: u8| store.answer_agent(build, asked.id, &[text]).await.unwrap();
    let taken = join_all([1, 2, 3, 4].map(answer)).await;
    assert_eq!(taken.iter().filter(|taken| **taken).count(), 1, "{taken:?}");
    let first = taken.iter().position(|taken| *taken).unwrap();
    assert_eq!(store.take_agent_messages(build, &[]).await.unwrap().0, []);
    let read = async |_| store.agent_answer(asked.id).await.unwrap();
    let read = join_all((0..4).map(read)).await;
    let expected = AgentState::Answered(vec![u8::try_from(first).unwrap() + 1]);
    assert_eq!(read.iter().filter(|state| **state == expected).count(), 1, "{read:?}");
    assert_eq!(read.iter().filter(|state| **state == AgentState::Gone).count(), 3, "{read:?}");
}

#[tokio::test]
async fn only_a_live_lease_asks_and_only_the_agents_of_its_stage() {
    let database = Database::start().await;
    let store = &database.store;
    let (build, worker, lease) = running(&database).await;
    let asked = question("default", Some(b"x"));
    for (epoch, agent) in [(lease.epoch.0 + 1, "default"), (lease.epoch.0 - 1, "default")] {
        let other = Lease { epoch: common::Epoch(epoch), ..lease };
        let refused = store.ask_agent(Asker::Lease(other), &question(agent, Some(b"x"))).await;
        assert!(matches!(refused, Err(StoreError::StaleLease)), "{refused:?}");
    }
    let refused = store.ask_agent(Asker::Lease(lease), &question("other", Some(b"x"))).await;
    assert!(matches!(refused, Err(StoreError::NotFound("agent"))), "{refused:?}");
    // The build is not being planned any more.
    let refused = store.ask_agent(Asker::Planner(build, Uuid::new_v4()), &asked).await;
    assert!(matches!(refused, Err(StoreError::WrongState("build"))), "{refused:?}");
    assert_eq!(store.take_agent_messages(build, &[]).await.unwrap().0, []);
    // After its end the stage asks nothing.
    store.finish_stage(&succeeded(lease)).await.unwrap();
    let refused = store.ask_agent(Asker::Lease(lease), &asked).await;
    assert!(matches!(refused, Err(StoreError::StaleLease)), "{refused:?}");
    database.sync(worker, &[]).await;
}

#[tokio::test]
async fn the_planner_of_a_build_asks_and_no_other() {
    let database = Database::start().await;
    let store = &database.store;
    let new = NewBuild { request: json!({"agents": ["default"]}), ..new_build(None) };
    let Submitted::New(build) = store.submit_build(&new).await.unwrap() else { panic!() };
    let (planner, other) = (Uuid::new_v4(), Uuid::new_v4());
    let asked = question("default", Some(b"x"));
    let ask = async |planner, asked: &AgentQuestion| {
        store.ask_agent(Asker::Planner(build, planner), asked).await
    };
    assert!(ask(planner, &asked).await.is_err(), "nobody plans it yet");
    store.claim_build(planner).await.unwrap().unwrap();
    assert!(ask(other, &asked).await.is_err());
    let refused = ask(planner, &question("other", Some(b"x"))).await;
    assert!(matches!(refused, Err(StoreError::NotFound("agent"))), "{refused:?}");
    assert_eq!(ask(planner, &asked).await.unwrap(), Asked::Waiting(build));
    assert_eq!(store.take_agent_messages(build, &[]).await.unwrap().0.len(), 1);
}

#[tokio::test]
async fn builds_see_only_their_own_messages() {
    let database = Database::start().await;
    let store = &database.store;
    let (build, _, lease) = running(&database).await;
    let (other, _, _) = running(&database).await;
    let asked = question("default", Some(b"x"));
    store.ask_agent(Asker::Lease(lease), &asked).await.unwrap();
    assert_eq!(store.take_agent_messages(other, &[]).await.unwrap().0, []);
    assert!(!store.answer_agent(other, asked.id, b"forged").await.unwrap());
    assert!(store.answer_agent(build, asked.id, b"true").await.unwrap());
    let answer = store.agent_answer(asked.id).await.unwrap();
    assert_eq!(answer, AgentState::Answered(b"true".to_vec()));
    assert!(!store.answer_agent(build, asked.id, b"late").await.unwrap());
}

#[tokio::test]
async fn ends_of_connections_are_told_once_and_messages_are_bounded() {
    let database = Database::start().await;
    let store = &database.store;
    let (build, _, lease) = running(&database).await;
    let end = question("default", None);
    store.ask_agent(Asker::Lease(lease), &end).await.unwrap();
    assert!(!store.answer_agent(build, end.id, b"x").await.unwrap(), "it has no answer");
    let (given, ended) = store.take_agent_messages(build, &[]).await.unwrap();
    assert_eq!((given, ended), (Vec::new(), vec![end.connection]));
    assert_eq!(store.take_agent_messages(build, &[]).await.unwrap(), (Vec::new(), Vec::new()));

    let mut ids = Vec::new();
    for _ in 0..128 {
        let asked = question("default", Some(b"x"));
        let put = store.ask_agent(Asker::Lease(lease), &asked).await.unwrap();
        assert_eq!(put, Asked::Waiting(build));
        ids.push(asked.id);
    }
    let last = question("default", Some(b"x"));
    assert_eq!(store.ask_agent(Asker::Lease(lease), &last).await.unwrap(), Asked::Full);
    // A client gets some at a time, oldest first, and those that are known are not in the way.
    let mut known: Vec<Uuid> = Vec::new();
    while known.len() < 128 {
        let (given, _) = store.take_agent_messages(build, &known).await.unwrap();
        assert_eq!(given.len(), 16);
        known.extend(given.iter().map(|row| row.id));
    }
    assert_eq!(known, ids);
    store.drop_agent_message(ids[0]).await.unwrap();
    assert_eq!(store.agent_answer(ids[0]).await.unwrap(), AgentState::Gone);
    assert_eq!(store.ask_agent(Asker::Lease(lease), &last).await.unwrap(), Asked::Waiting(build));
}

#[tokio::test]
async fn the_messages_of_a_build_end_with_it() {
    let database = Database::start().await;
    let store = &database.store;
    let (build, _, lease) = running(&database).await;
    let (other, _, other_lease) = running(&database).await;
    for lease in [lease, other_lease] {
        store.ask_agent(Asker::Lease(lease), &question("default", Some(b"x"))).await.unwrap();
    }
    assert_eq!(store.forget_agent_messages().await.unwrap(), 0);
    let failure = Failure::new(FailureClass::Cancelled, "cancelled", "cancelled");
    assert!(store.cancel_build(build, &failure).await.unwrap());
    assert_eq!(store.forget_agent_messages().await.unwrap(), 1);
    assert_eq!(store.take_agent_messages(build, &[]).await.unwrap().0, []);
    assert_eq!(store.take_agent_messages(other, &[]).await.unwrap().0.len(), 1);
    // Its holder is to drop the stage, and asks nothing meanwhile.
    let late = store.ask_agent(Asker::Lease(lease), &question("default", Some(b"x"))).await;
    assert!(matches!(late, Err(StoreError::StaleLease)), "{late:?}");
}
