//! `create = "github" | "gitlab" | "gitea" | "push"`: what the hosts are asked, and what their answers become.

use std::path::PathBuf;

use serde_json::json;

use crate::scene::forge::{ADMIN, Brand, Forge};
use crate::scene::sandbox::{Completed, Sandbox};

/// A host, and a source whose mirror `m` is there.
struct Hosted {
    sandbox: Sandbox,
    forge: Forge,
    source: PathBuf,
}

const BRANDS: [(Brand, &str); 3] = [(Brand::Github, "github"), (Brand::Gitlab, "gitlab"), (Brand::Gitea, "gitea")];

impl Hosted {
    fn new(brand: Brand, name: &str, keys: &[&str]) -> Self {
        let sandbox = Sandbox::of(("sha1", "files"));
        let forge = Forge::start(&sandbox, brand);
        let token = sandbox.secret_file("admin.token", &format!("{ADMIN}\n"));
        let word = BRANDS.iter().find(|(known, _)| *known == brand).unwrap().1;
        let (create, token) = (format!("create={word}"), format!("create_token_file={token}"));
        let usual = ["allow_insecure_http=true", &create, &token];
        let source = sandbox.source(&forge.url(name), &[&usual, keys].concat());
        std::fs::write(source.join("description"), "Widgets\n").unwrap();
        let work = sandbox.work(&source);
        work.commit("one");
        work.push(&["main"]);
        Self { sandbox, forge, source }
    }

    fn sync(&self) -> Completed {
        self.sandbox.mirror_push(&self.source, &["sync", "m"])
    }

    fn is_mirrored(&self, name: &str) -> bool {
        self.sandbox.refs(&self.forge.repository(name)) == self.sandbox.refs(&self.source)
    }
}

#[test]
fn each_host_is_asked_once_in_its_own_words() {
    for (brand, word) in BRANDS {
        let hosted = Hosted::new(brand, "acme/widget.git", &[]);
        let said = hosted.sandbox.mirror_push_ok(&hosted.source, &["plan"]);
        assert!(said.out.contains("would create the repository"), "{word}: {said:?}");
        hosted.sandbox.mirror_push(&hosted.source, &["doctor"]);
        let looked = hosted.forge.requests();
        assert!(looked.iter().all(|request| request.contains("service=git-upload-pack")), "{word}: {looked:?}");
        assert_eq!(looked.len(), 2, "{word}: {looked:?}");

        let said = hosted.sync();
        assert_eq!(said.status, 0, "{word}: {said:?}");
        assert!(hosted.is_mirrored("acme/widget.git"), "{word}");
        let asked = hosted.forge.requests();
        let expected: &[&str] = match brand {
            Brand::Github => &["POST /api/v3/orgs/acme/repos"],
            Brand::Gitlab => &["GET /api/v4/namespaces/acme", "POST /api/v4/projects"],
            Brand::Gitea => &["POST /api/v1/orgs/acme/repos"],
        };
        let of_api: Vec<&String> = asked.iter().filter(|request| request.contains("/api/")).collect();
        assert_eq!(of_api, expected, "{word}");
        let wish = match brand {
            Brand::Github => json!({
                "name": "widget", "description": "Widgets", "private": true, "visibility": "private",
                "has_issues": false, "has_projects": false, "has_wiki": false, "auto_init": false,
            }),
            Brand::Gitlab => json!({
                "name": "widget", "path": "widget", "namespace_id": 1, "description": "Widgets", "visibility": "private",
            }),
            Brand::Gitea => json!({
                "name": "widget", "description": "Widgets", "private": true, "auto_init": false,
                "object_format_name": "sha1", "default_branch": "main",
            }),
        };
        assert_eq!(hosted.forge.wishes(), [wish], "{word}");
        // After that, the API gets no more requests.
        let work = hosted.sandbox.work(&hosted.source);
        work.commit("two");
        work.push(&["main"]);
        hosted.sandbox.mirror_push_ok(&hosted.source, &["drain"]);
        let asked = hosted.forge.requests();
        assert!(asked.iter().all(|request| request.contains("git-receive-pack")), "{word}: {asked:?}");
    }
}

#[test]
fn a_user_a_group_below_a_group_and_a_public_repository() {
    let hosted = Hosted::new(Brand::Github, "bot/widget.git", &["create_visibility=public"]);
    assert_eq!(hosted.sync().status, 0);
    assert!(hosted.is_mirrored("bot/widget.git"));
    let asked: Vec<String> = hosted.forge.requests().into_iter().filter(|request| request.contains("/api/")).collect();
    assert_eq!(asked, ["POST /api/v3/orgs/bot/repos", "GET /api/v3/user", "POST /api/v3/user/repos"]);
    let wishes = hosted.forge.wishes();
    assert!(wishes[0]["private"] == false && wishes[0]["visibility"] == "public", "{wishes:?}");

    let hosted = Hosted::new(Brand::Gitlab, "acme/sub/widget.git", &["create_visibility=internal"]);
    assert_eq!(hosted.sync().status, 0);
    assert!(hosted.is_mirrored("acme/sub/widget.git"));
    assert_eq!(hosted.forge.wishes()[0]["visibility"], "internal");
    // With its own URL for the API.
    let hosted = Hosted::new(Brand::Gitea, "bot/widget.git", &[]);
    let api = format!("create_url={}/", hosted.forge.api());
    hosted.sandbox.mirror_push_ok(&hosted.source, &["set", "m", &api]);
    assert_eq!(hosted.sync().status, 0);
    assert!(hosted.is_mirrored("bot/widget.git"));
}

#[test]
fn answers_of_the_hosts_are_said_in_our_words_with_what_is_missing() {
    type Case =
        (Brand, u16, &'static [(&'static str, &'static str)], &'static str, &'static [&'static str], &'static str);
    const CASES: &[Case] = &[
        (
            Brand::Github,
            403,
            &[("X-Accepted-GitHub-Permissions", "administration=write")],
            r#"{"message":"Resource not accessible by personal access token"}"#,
            &[
                "the token may not create repositories in 'acme'",
                "'Administration: write'",
                "wants: administration=write",
            ],
            "failed",
        ),
        (
            Brand::Gitlab,
            403,
            &[],
            r#"{"message":"403 Forbidden"}"#,
            &["in 'acme'", "the scope 'api'", "says: 403 Forbidden"],
            "failed",
        ),
        (
            Brand::Gitea,
            401,
            &[],
            r#"{"message":"invalid username, password or token"}"#,
            &["does not accept the token", "says: invalid"],
            "failed",
        ),
        (
            Brand::Github,
            422,
            &[],
            r#"{"message":"Validation Failed"}"#,
            &["refused 'acme/widget' (HTTP 422)", "says: Validation Failed"],
            "failed",
        ),
        (
            Brand::Gitea,
            429,
            &[("Retry-After", "77")],
            "{}",
            &["asks to wait before more repositories are created"],
            "scheduled",
        ),
        (
            Brand::Github,
            403,
            &[("Retry-After", "77")],
            r#"{"message":"You have exceeded a secondary rate limit"}"#,
            &["asks to wait before more"],
            "scheduled",
        ),
        (Brand::Gitlab, 503, &[], r#"{"message":"down"}"#, &["HTTP 503: down"], "scheduled"),
        (
            Brand::Gitlab,
            302,
            &[("Location", "http://127.0.0.1:9/x?private_token=adm1n-t0ken")],
            "{}",
            &["redirects to http://127.0.0.1:9/x (HTTP 302)"],
            "failed",
        ),
    ];
    for (brand, status, headers, body, expected, state) in CASES {
        let hosted = Hosted::new(*brand, "acme/widget.git", &[]);
        hosted.forge.prepare(*status, headers, body);
        let begin = jiff::Timestamp::now();
        let said = hosted.sync();
        assert_eq!(said.status, 1, "{brand:?} {status}: {said:?}");
        for text in *expected {
            assert!(said.out.contains(text), "{brand:?} {status}: '{text}' is not in {said:?}");
        }
        assert!(!format!("{said:?}").contains(ADMIN), "{said:?}");
        let shown = hosted.sandbox.status(&hosted.source);
        assert_eq!(shown["update_status"], *state, "{brand:?} {status}: {shown}");
        if headers.iter().any(|(name, _)| *name == "Retry-After") {
            let next: jiff::Timestamp = shown["next_attempt_at"].as_str().unwrap().parse().unwrap();
            assert!(next.duration_since(begin).as_secs() >= 76, "{brand:?} {status}: {shown}");
        }
        // The next attempt succeeds, and asks once.
        hosted.forge.wishes();
        assert_eq!(hosted.sync().status, 0, "{brand:?} {status}");
        assert_eq!(hosted.forge.wishes().len(), 1, "{brand:?} {status}");
    }
    for (brand, word) in BRANDS {
        let hosted = Hosted::new(brand, "nobody/widget.git", &[]);
        let said = hosted.sync();
        assert!(said.status == 1 && said.out.contains("'nobody' that the token"), "{word}: {said:?}");
        let hosted = Hosted::new(brand, "acme/widget.git", &[]);
        hosted.sandbox.mirror_push_ok(&hosted.source, &["set", "m", "create_token_file="]);
        let said = hosted.sync();
        assert!(said.out.contains("there is no token for the API"), "{word}: {said:?}");
        assert_eq!(hosted.forge.wishes().len(), 0);
        let hosted = Hosted::new(brand, "acme/widget.git", &[]);
        hosted.sandbox.mirror_push_ok(&hosted.source, &["set", "m", "allow_insecure_http=false"]);
        let said = hosted.sync();
        assert!(said.out.contains("a token would go over plain http"), "{word}: {said:?}");
        // The case of the scheme does not matter.
        let api = hosted.forge.api().replace("http://", "HTTP://");
        hosted.sandbox.mirror_push_ok(&hosted.source, &["set", "m", &format!("create_url={api}")]);
        assert!(hosted.sync().out.contains("a token would go over plain http"), "{word}");
        assert!(hosted.forge.requests().iter().all(|request| !request.contains("/api/")), "{word}");
    }
    let hosted = Hosted::new(Brand::Github, "acme/deep/widget.git", &[]);
    assert!(hosted.sync().out.contains("'acme/deep/widget' is not OWNER/NAME, the form that github needs"));
}

/// The host says that the repository exists, and upload-pack says that it does not: the account that pushes cannot see it.
#[test]
fn a_repository_that_exists_and_cannot_be_seen_is_said() {
    for (brand, word) in BRANDS {
        let hosted = Hosted::new(brand, "acme/widget.git", &[]);
        std::fs::create_dir_all(hosted.forge.repository("acme")).unwrap();
        // The API sees the name; git sees no repository there.
        std::fs::write(hosted.forge.repository("acme/widget.git"), "").unwrap();
        let said = hosted.sync();
        assert!(said.status == 1, "{word}: {said:?}");
        assert_eq!(hosted.forge.wishes().len(), 0, "{word}: nothing is created where something exists");
        let (status, body) = match brand {
            Brand::Github => (422, r#"{"errors":[{"message":"name already exists on this account"}]}"#),
            Brand::Gitlab => (400, r#"{"message":{"path":["has already been taken"]}}"#),
            Brand::Gitea => (409, r#"{"message":"The repository with the same name already exists."}"#),
        };
        std::fs::remove_file(hosted.forge.repository("acme/widget.git")).unwrap();
        hosted.forge.prepare(status, &[], body);
        let said = hosted.sync();
        assert!(
            said.status == 1 && said.out.contains("says that it exists, but the account that pushes cannot see it"),
            "{word}: {said:?}"
        );
    }
}

#[test]
fn a_sha256_repository_is_refused_where_the_host_would_make_another() {
    let sandbox = Sandbox::of(("sha256", "files"));
    let forge = Forge::start(&sandbox, Brand::Github);
    forge.create_on_push();
    let token = sandbox.secret_file("admin.token", ADMIN);
    let token = format!("create_token_file={token}");
    let source = sandbox.source(&forge.url("acme/widget.git"), &["allow_insecure_http=true", "create=github", &token]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    let said = sandbox.mirror_push(&source, &["sync"]);
    assert!(said.status == 1 && said.out.contains("GitHub has no SHA-256 repositories"), "{said:?}");
    sandbox.mirror_push_ok(&source, &["set", "m", "create=push"]);
    let said = sandbox.mirror_push(&source, &["sync"]);
    assert!(said.status == 1 && said.out.contains("hosts make SHA-1 repositories"), "{said:?}");
    assert!(forge.wishes().is_empty() && !forge.repository("acme").exists());
}
