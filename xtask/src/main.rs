//! Every chore of the house: `cargo xtask NAME`.

mod chaos;
mod cluster;
mod front;
mod run;
mod setup;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use run::{Failed, cargo, in_root};
use setup::For;

/// Every chore of the house.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Install what is missing, for one of the chores below
    Setup {
        #[arg(long = "for", value_enum, default_value_t = For::Test)]
        purpose: For,
    },
    /// Build the front end into dist/
    Front {
        /// Small and slow to build
        #[arg(long)]
        release: bool,
    },
    /// Build, and run a desk with demo customers
    Up {
        #[arg(long)]
        release: bool,
        /// Handed on to `warren up --demo`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Everything that CI runs
    Test,
    /// A whole cluster, privately on this machine
    Cluster(cluster::Options),
    /// Break a running desk on a seeded schedule; check that nothing is lost
    Chaos {
        /// Handed on; `--help` tells
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Feed mangled input to everything that reads what comes from outside
    Fuzz {
        /// So many inputs for each target
        #[arg(long, default_value_t = 10_000_000)]
        runs: u64,
    },
    /// The figures that the README reports
    Bench,
    /// The rules of the house that the compiler doesn't know
    Tidy,
}

fn main() -> ExitCode {
    let done = match Cli::parse().chore {
        Chore::Setup { purpose } => setup::bring(purpose),
        Chore::Front { release } => setup::bring(For::Up).and_then(|()| front::build(release)),
        Chore::Up { release, args } => up(release, &args),
        Chore::Test => test::everything(),
        Chore::Cluster(options) => cluster::run(&options),
        Chore::Chaos { args } => chaos::run_by_hand(&args),
        Chore::Fuzz { runs } => fuzz(runs),
        Chore::Bench => bench(),
        Chore::Tidy => tidy::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed(why)) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}

fn up(release: bool, args: &[String]) -> Result<(), Failed> {
    setup::bring(For::Up)?;
    front::build(release)?;
    let mut build = vec!["build", "--package", "warren"];
    if release {
        build.push("--release");
    }
    cargo(&build)?;
    let binary = if release { "target/release/warren" } else { "target/debug/warren" };
    run::replace(in_root(binary).args(["up", "--demo"]).args(args))
}

/// What is found is kept in fuzz/artifacts; what was learnt, in fuzz/corpus.
fn fuzz(runs: u64) -> Result<(), Failed> {
    setup::fuzzer()?;
    for target in ["client_frames", "external_bodies", "amqp_envelopes"] {
        let corpus = format!("fuzz/corpus/{target}");
        std::fs::create_dir_all(run::root().join(&corpus))?;
        let seeds = format!("fuzz/seeds/{target}");
        let mut fuzz = in_root("cargo");
        // Instrumented by flags that the stable compiler knows as well; the
        // code has nothing that a sanitizer would watch.
        fuzz.env("RUSTC_BOOTSTRAP", "1");
        fuzz.args(["fuzz", "run", "--sanitizer", "none", target, &corpus, &seeds, "--"]);
        fuzz.args([&format!("-runs={runs}"), "-max_len=8192", "-print_final_stats=1"]);
        run::run(&mut fuzz)?;
    }
    Ok(())
}

fn bench() -> Result<(), Failed> {
    setup::bring(For::Test)?;
    front::build(true)?;
    front::sizes()?;
    cargo(&["bench", "--package", "warren", "--bench", "figures"])
}
