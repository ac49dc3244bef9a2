//! What every page has around it.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::Visitor;
use crate::terminal::escaped_lines;

/// A page of someone who has logged in. `said` is what the last form did.
pub(super) fn page(visitor: &Visitor, title: &str, said: Option<&str>, body: &Markup) -> Markup {
    whole(
        title,
        &html! {
            header.top {
                a.home href="/" { "Mirrors" }
                form action="/logout" method="post" {
                    (csrf(visitor))
                    span.who { "Token " strong { (visitor.token.name) } @if !visitor.may_write() { " (read only)" } }
                    button.quiet { "Log out" }
                }
            }
            main id="main" tabindex="-1" {
                h1 { (title) }
                @if let Some(said) = said { p.said role="status" { (said) } }
                (body)
            }
        },
    )
}

/// The hidden field with the CSRF token. Every form that changes something must have it, except the
/// login.
pub(super) fn csrf(visitor: &Visitor) -> Markup {
    html! { input type="hidden" name="csrf" value=(visitor.session.csrf); }
}

/// The page where one logs in.
pub(super) fn login(wrong: Option<&str>) -> Markup {
    whole(
        "Log in",
        &html! {
            main.narrow id="main" {
                h1 { "Mirrors" }
                form action="/login" method="post" {
                    @if let Some(wrong) = wrong { p.error role="alert" id="wrong" { (wrong) } }
                    label for="token" { "Token" }
                    input id="token" name="token" type="password" autocomplete="current-password" required autofocus
                        aria-describedby="hint" aria-invalid=[wrong.map(|_| "true")];
                    p.hint id="hint" { "On the server: " code { "git mirror-push token create --name NAME" } }
                    button { "Log in" }
                }
            }
        },
    )
}

/// A page of one sentence.
pub(super) fn plain(title: &str, text: &str) -> Markup {
    whole(
        title,
        &html! { main.narrow id="main" { h1 { (title) } p { (text) } p { a href="/" { "Back to the mirrors" } } } },
    )
}

/// Escapes what a browser would obey in the names that others have given.
pub(super) fn unobeyed(markup: Markup) -> Markup {
    PreEscaped(escaped_lines(&markup.into_string()))
}

fn whole(title: &str, body: &Markup) -> Markup {
    unobeyed(html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · git-mirror-push" }
                link rel="icon" type="image/svg+xml" href="/assets/icon.svg";
                link rel="stylesheet" href="/assets/page.css";
                script src="/assets/page.js" defer {}
            }
            body { a.skip href="#main" { "Skip to the content" } (body) }
        }
    })
}
