//! Flags of RUN, COPY and ADD; named contexts.

use std::sync::Arc;

use common::plan::{Base, Chmod, CopyFrom, Network, Security, Unpack};
use dockerfile::NamedContext;

use crate::planning::{Planning, copies, history, last, runs, tree};

#[test]
fn copies_take_all_flags() {
    let stage = last(
        "FROM a\nCOPY --link --exclude=*.o --exclude=!a.o dir /x\nCOPY --parents ./dir/./inner /y\n\
         COPY --link --chmod=u=rwX,go=rX file /z\nADD --unpack file /w\n",
    );
    let copies = copies(&stage);
    assert!(copies[0].link);
    assert_eq!(copies[0].exclude, ["*.o", "!a.o"]);
    assert!(copies[1].parents);
    assert_eq!(copies[1].sources, ["/dir/./inner"]);
    // C26: ignored together with --chmod.
    assert!(!copies[2].link);
    assert_eq!(copies[2].chmod, Some(Chmod::Symbolic("u=rwX,go=rX".into())));
    assert_eq!(copies[3].unpack, Unpack::All);
    // G3: which of them stand in the history.
    let texts = history(&stage);
    assert!(texts.contains(&"COPY dir /x # buildkit".to_owned()), "{texts:?}");
    assert!(texts.contains(&"COPY --parents ./dir/./inner /y # buildkit".to_owned()), "{texts:?}");
}

#[test]
fn modes_are_octal_or_symbolic() {
    let mode = |mode: &str| {
        let planning = Planning::new(&format!("FROM a\nCOPY --chmod={mode} file /x"));
        planning.run().map(|planned| copies(planned.plan.stages.last().unwrap())[0].chmod.clone())
    };
    assert_eq!(mode("4755").unwrap(), Some(Chmod::Octal(0o4755)));
    for good in ["u+x", "a=r,u+w", "g=u", "+x", "ug-s", "=", "o+t,u=rwX"] {
        assert_eq!(mode(good).unwrap(), Some(Chmod::Symbolic(good.into())), "{good}");
    }
    for bad in ["64a", "10000", "u+y", "u", "+755", "u+x,", "k=r"] {
        assert_eq!(mode(bad).unwrap_err()[0].code, "bad-flag-value", "{bad}");
    }
}

#[test]
fn everything_below_a_double_star_counts() {
    let key = |files: &[(&str, &str)]| {
        let text = "FROM a\nCOPY --parents d/**/x /";
        Planning::new(text).context(tree(files)).last().key
    };
    assert_ne!(key(&[("d/a/b/x", "1")]), key(&[("d/a/b/x", "2")]));
    assert_eq!(key(&[("d/x", "1"), ("e", "1")]), key(&[("d/x", "1"), ("e", "2")]));
    let stage = "FROM a AS s\nRUN y\nFROM a\nCOPY --from=s --parents /d/**/x /";
    let plan = Planning::new(stage).plan();
    assert_eq!(plan.stages[0].demands[0].selector.patterns(), ["/d/*"]);
}

#[test]
fn networks_and_security_are_planned() {
    let stage = last("FROM a\nRUN --network=none x\nRUN --security=insecure y\nRUN z");
    let all: Vec<_> = runs(&stage).iter().map(|run| (run.network, run.security)).collect();
    let expected = [
        (Network::None, Security::Sandbox),
        (Network::Default, Security::Insecure),
        (Network::Default, Security::Sandbox),
    ];
    assert_eq!(all, expected);
    // E23: the build's own network counts where the RUN says default.
    let mut planning = Planning::new("FROM a\nRUN --network=host x\nRUN y");
    planning.options.network = Network::None;
    let stage = planning.last();
    assert_eq!(runs(&stage)[0].network, Network::Host);
    assert_eq!(runs(&stage)[1].network, Network::None);
}

fn with_context(text: &str, name: &str, context: NamedContext) -> Planning {
    let mut planning = Planning::new(text);
    planning.options.contexts.insert(name.to_owned(), context);
    planning
}

#[test]
fn a_named_context_takes_the_place_of_stages_and_images() {
    let local = || NamedContext::Local(Arc::new(tree(&[("f", "1")])));
    // B18: of a stage with all its commands.
    let text = "FROM a AS base\nRUN x\nFROM base\nCOPY --from=base /f /\n";
    let plan = with_context(text, "base", local()).plan();
    assert_eq!(plan.stages[0].base, Base::Scratch);
    assert_eq!(plan.stages[0].steps.len(), 1);
    assert!(plan.images.is_empty());
    // Of an image, with or without its tag.
    for reference in ["alpine", "alpine:latest"] {
        let text = format!("FROM {reference}\nRUN x");
        let plan = with_context(&text, "alpine", NamedContext::Image("other:1".into())).plan();
        assert_eq!(plan.images[0].reference, "other:1");
    }
    // Of what is copied and mounted from.
    let text = "FROM a\nCOPY --from=src /f /\nRUN --mount=from=src,target=/m x";
    let stage = with_context(text, "src", local()).last();
    let named = CopyFrom::NamedContext { name: "src".into() };
    assert_eq!(copies(&stage)[0].from, named);
    assert_eq!(runs(&stage)[0].mounts[0].from(), Some(&named));
    let missing = with_context("FROM a\nCOPY --from=src /nope /", "src", local()).failure();
    assert_eq!(missing, ("missing-source".into(), 2));
    // What cannot be replaced.
    let plan = with_context("FROM scratch\nCOPY file /", "scratch", local()).plan();
    assert_eq!(plan.stages[0].steps.len(), 1);
}
