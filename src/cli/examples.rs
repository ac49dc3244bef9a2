//! Examples of the commands, for `-h` and git-mirror-push(1). A test reads each with the parser of the command line.

/// A command, an example of it, and what the example does.
pub(super) const EXAMPLES: &[(&str, &str, &str)] = &[
    (
        "add",
        "git mirror-push add github https://acme-bot@github.com/acme/widget.git --password-stdin",
        "Adds a mirror; its token is read from standard input",
    ),
    ("set", "git mirror-push set github --divergent-refs keep max_deletes=10", "Changes two keys of a mirror"),
    ("enable", "git mirror-push enable github", "Mirrors again, and compares everything"),
    ("disable", "git mirror-push disable github", "Stops one mirror"),
    ("remove", "git mirror-push remove github", "Removes a mirror and its state"),
    ("reset", "git mirror-push reset backup", "Uses the settings of the server's file again"),
    ("list", "git mirror-push list", "Lists names and URLs"),
    ("show", "git mirror-push show github --origin", "Shows which file set each value"),
    ("drain", "git mirror-push drain --all -q", "Mirrors every repository of this server, for a timer"),
    ("sync", "git mirror-push sync github --adopt", "Confirms that this is the intended mirror"),
    ("plan", "git mirror-push plan github", "Says what the next sync would do to each ref"),
    ("pull", "git mirror-push pull --all --due", "Checks the upstreams that are due, from cron for example"),
    ("status", "git mirror-push status --all", "Shows every mirror of this server, failing ones first"),
    ("check", "git mirror-push check --all -w 30m -c 6h", "Answers a monitoring system"),
    ("log", "git mirror-push log github --since 1d", "Lists the attempts of the last day"),
    ("protect", "git mirror-push protect main '*-stable'", "Protects main and each branch that ends in -stable"),
    ("unprotect", "git mirror-push unprotect '*-stable'", "Removes one pattern"),
    ("protected", "git mirror-push protected", "Lists the patterns, one a line"),
    ("install-hook", "git mirror-push install-hook --all", "Installs the hook in every repository of this server"),
    ("uninstall-hook", "git mirror-push uninstall-hook", "Restores the previous hook"),
    ("silent", "git mirror-push silent on", "Stops all mirroring, before a restore for example"),
    ("public-key", "git mirror-push public-key office", "Prints the key, which the host must authorise"),
    ("host-keys", "git mirror-push host-keys office --detect", "Shows what the host offers, and pins it after 'y'"),
    ("credential", "git mirror-push credential github", "Asks for the new password or token"),
    ("conflicts", "git mirror-push conflicts", "Shows what both sides moved, and the commands that resolve it"),
    ("resolve", "git mirror-push resolve office main --ours", "Gives our main to the mirror, and keeps the mirror's"),
    (
        "kept",
        "git mirror-push kept upstream --restore main --as main-before",
        "Brings a replaced branch back under another name",
    ),
    ("webhook", "git mirror-push webhook upstream", "Prints what to enter in the settings of upstream's host"),
    ("import", "git mirror-push import --root /srv/git --dry-run", "Shows what would be imported"),
    ("export", "git mirror-push export --all", "Prints every mirror, to move them to another server"),
    ("doctor", "git mirror-push doctor", "Looks for problems"),
    (
        "serve",
        "git mirror-push serve --listen unix:/run/git-mirror-push/web.sock",
        "Runs the daemon behind a web server",
    ),
    (
        "token",
        "git mirror-push token create --name ci --scope read_api --expires 90d",
        "Makes a token that may only read, for 90 days",
    ),
    ("fleet", "git mirror-push fleet", "Shows the machines that share a database, and what is wrong with them"),
    ("completions", "git mirror-push completions bash", "Prints the script for bash"),
    ("man", "git mirror-push man git-mirror-push-config", "Prints the manual page of the configuration"),
];

/// The common options, in one line.
pub(super) const COMMON: &str =
    "Common options: --git-dir PATH, -C PATH, --config FILE, --json, -v, -q, --color WHEN (--help explains them)";

/// The end of a command's `-h`.
pub(super) fn after_help(command: &str) -> String {
    match EXAMPLES.iter().find(|(name, ..)| *name == command) {
        Some((_, example, does)) => format!("{COMMON}\n\nExample: {does}\n  {example}"),
        None => COMMON.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::args::Cli;

    #[test]
    fn each_command_has_an_example_that_can_be_typed() {
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            assert!(EXAMPLES.iter().any(|(name, ..)| *name == command.get_name()), "{}", command.get_name());
        }
        for (command, example, _) in EXAMPLES {
            let words = example.strip_prefix("git mirror-push ").expect("git's way to call it").split(' ');
            let words = words.map(|word| word.trim_matches('\''));
            assert_eq!(words.clone().next(), Some(*command), "{example}");
            let read = Cli::try_parse_from(std::iter::once("git-mirror-push").chain(words));
            assert!(read.is_ok(), "{example}: {read:?}");
        }
    }
}
