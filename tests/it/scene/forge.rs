//! A host of git repositories: the documented API of GitHub, GitLab or Gitea as far as it creates repositories, and real git behind it.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Response, Uri};
use serde_json::{Value, json};

use crate::scene::sandbox::Sandbox;
use crate::scene::web::{self, Answer, Request};

/// Whose API it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Brand {
    Github,
    Gitlab,
    Gitea,
}

/// The token that may create repositories.
pub(crate) const ADMIN: &str = "adm1n-t0ken";

/// A host. It runs until the test ends.
pub(crate) struct Forge {
    port: u16,
    state: Arc<State>,
}

struct State {
    sandbox: PathBuf,
    environment: Vec<(&'static str, std::ffi::OsString)>,
    brand: Brand,
    known: Mutex<Known>,
}

/// Status, headers and body of an answer.
type Prepared = (u16, Vec<(&'static str, &'static str)>, String);

#[derive(Default)]
struct Known {
    /// Method and path of each request.
    requests: Vec<String>,
    /// The body of each request that creates something.
    wishes: Vec<Value>,
    /// Answers for the next requests that create something: status, headers, body.
    prepared: VecDeque<Prepared>,
    /// Whether a push creates a repository, as GitLab and Gitea can do.
    creates_on_push: bool,
    at_work: usize,
    most_at_work: usize,
}

impl Forge {
    /// Its repositories are below `hosted` in the sandbox. There is the organisation `acme`, with the group `acme/sub` at GitLab, and the user
    /// `bot`.
    pub(crate) fn start(sandbox: &Sandbox, brand: Brand) -> Self {
        let (path, environment) = (sandbox.path(""), sandbox.environment());
        let state = Arc::new(State { sandbox: path, environment, brand, known: Mutex::default() });
        let shared = Arc::clone(&state);
        let port = web::serve(move |request| shared.answer(request));
        Self { port, state }
    }

    /// The URL of a repository, without credentials.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}/{name}", self.port)
    }

    pub(crate) fn api(&self) -> String {
        self.url(&self.state.base()[1..])
    }

    pub(crate) fn repository(&self, name: &str) -> PathBuf {
        self.state.sandbox.join("hosted").join(name)
    }

    /// Prepares the answer to the next request that would create something. That request creates
    /// nothing.
    pub(crate) fn prepare(&self, status: u16, headers: &[(&'static str, &'static str)], body: &str) {
        self.state.known.lock().unwrap().prepared.push_back((status, headers.to_vec(), body.to_owned()));
    }

    pub(crate) fn create_on_push(&self) {
        self.state.known.lock().unwrap().creates_on_push = true;
    }

    /// The requests since the last call.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.known.lock().unwrap().requests)
    }

    /// What was asked to be created since the last call.
    pub(crate) fn wishes(&self) -> Vec<Value> {
        std::mem::take(&mut self.state.known.lock().unwrap().wishes)
    }

    /// The largest number of creations at once.
    pub(crate) fn most_at_work(&self) -> usize {
        self.state.known.lock().unwrap().most_at_work
    }
}

impl State {
    fn base(&self) -> &'static str {
        match self.brand {
            Brand::Github => "/api/v3",
            Brand::Gitlab => "/api/v4",
            Brand::Gitea => "/api/v1",
        }
    }

    fn answer(&self, Request { method, uri, headers, body }: &Request) -> Answer {
        self.known.lock().unwrap().requests.push(format!("{method} {uri}"));
        match uri.path().strip_prefix(self.base()) {
            Some(path) => self.api(method, path, headers, body),
            None => self.git(method, uri, headers, body),
        }
    }

    fn api(&self, method: &Method, path: &str, headers: &HeaderMap, body: &[u8]) -> Answer {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_known = match self.brand {
            Brand::Github => header("authorization") == format!("Bearer {ADMIN}"),
            Brand::Gitlab => header("private-token") == ADMIN,
            Brand::Gitea => header("authorization") == format!("token {ADMIN}"),
        };
        if !is_known {
            return web::json(401, &[], &json!({"message": "401 Unauthorized"}));
        }
        match (method.as_str(), path) {
            ("GET", "/user") => web::json(200, &[], &json!({"login": "bot", "username": "bot"})),
            ("GET", "/namespaces/acme") => web::json(200, &[], &json!({"id": 1})),
            ("GET", "/namespaces/acme%2Fsub") => web::json(200, &[], &json!({"id": 2})),
            ("GET", "/namespaces/bot") => web::json(200, &[], &json!({"id": 3})),
            ("POST", "/orgs/acme/repos") if self.brand != Brand::Gitlab => self.create("acme", body),
            ("POST", "/user/repos") if self.brand != Brand::Gitlab => self.create("bot", body),
            ("POST", "/projects") if self.brand == Brand::Gitlab => {
                let wish: Value = serde_json::from_slice(body).unwrap();
                let group =
                    ["", "acme", "acme/sub", "bot"][usize::try_from(wish["namespace_id"].as_u64().unwrap()).unwrap()];
                self.create(group, body)
            }
            _ => web::json(404, &[], &json!({"message": "404 Not Found"})),
        }
    }

    fn create(&self, group: &str, body: &[u8]) -> Answer {
        let wish: Value = serde_json::from_slice(body).unwrap();
        let prepared = {
            let mut known = self.known.lock().unwrap();
            known.wishes.push(wish.clone());
            known.at_work += 1;
            known.most_at_work = known.most_at_work.max(known.at_work);
            known.prepared.pop_front()
        };
        // A creation takes a moment, so that two at once are counted as two.
        std::thread::sleep(std::time::Duration::from_millis(50));
        self.known.lock().unwrap().at_work -= 1;
        if let Some((status, headers, text)) = prepared {
            return web::json(status, &headers, &serde_json::from_str(&text).unwrap_or(Value::Null));
        }
        let name = wish["path"].as_str().or(wish["name"].as_str()).unwrap();
        if !self.init(&format!("{group}/{name}.git")) {
            return match self.brand {
                Brand::Github => web::json(
                    422,
                    &[],
                    &json!({"message": "Repository creation failed.", "errors": [{"message": "name already exists on this account"}]}),
                ),
                Brand::Gitlab => web::json(400, &[], &json!({"message": {"path": ["has already been taken"]}})),
                Brand::Gitea => {
                    web::json(409, &[], &json!({"message": "The repository with the same name already exists."}))
                }
            };
        }
        web::json(201, &[], &json!({"id": 1, "name": name}))
    }

    /// Makes a repository. Returns whether there was none.
    fn init(&self, name: &str) -> bool {
        let path = self.sandbox.join("hosted").join(name);
        if path.exists() {
            return false;
        }
        let mut git = self.program("git");
        let made = git.args(["init", "-q", "--bare"]).arg(&path).status().unwrap();
        assert!(made.success());
        assert!(
            self.program("git")
                .arg("--git-dir")
                .arg(&path)
                .args(["config", "http.receivepack", "true"])
                .status()
                .unwrap()
                .success()
        );
        true
    }

    fn program(&self, name: &str) -> std::process::Command {
        let mut command = std::process::Command::new(name);
        command.env_clear().envs(self.environment.iter().cloned()).stdin(Stdio::null());
        command
    }

    /// Answers with `git http-backend`. If the repository does not exist, a push may create it;
    /// otherwise the answer is 404.
    fn git(&self, method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Answer {
        let name = uri.path().trim_start_matches('/').split(".git/").next().unwrap().to_owned() + ".git";
        let is_push = uri.query().is_some_and(|query| query.contains("git-receive-pack"));
        let creates = self.known.lock().unwrap().creates_on_push;
        let is_there = self.sandbox.join("hosted").join(&name).exists() || creates && is_push && self.init(&name);
        if !is_there {
            return Response::builder()
                .status(404)
                .header("content-type", "text/plain")
                .body(Body::from("not here"))
                .unwrap();
        }
        let header =
            |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let mut backend = self.program("git");
        backend
            .arg("http-backend")
            .env("GIT_PROJECT_ROOT", self.sandbox.join("hosted"))
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("PATH_INFO", uri.path())
            .env("QUERY_STRING", uri.query().unwrap_or_default())
            .env("REQUEST_METHOD", method.as_str())
            .env("CONTENT_TYPE", header("content-type"))
            .env("CONTENT_LENGTH", body.len().to_string())
            .env("GIT_PROTOCOL", header("git-protocol"));
        let out = output_of(&mut backend, body);
        let mut lines = BufReader::new(&*out);
        let (mut status, mut answer) = (200, Response::builder());
        loop {
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            match name {
                "Status" => status = value.split(' ').next().unwrap().parse().unwrap(),
                name => answer = answer.header(name, value),
            }
        }
        let mut rest = Vec::new();
        lines.read_to_end(&mut rest).unwrap();
        answer.status(status).body(Body::from(rest)).unwrap()
    }
}

fn output_of(command: &mut std::process::Command, input: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // The backend may answer before it has read everything.
        let _ = stdin.write_all(&input);
    });
    let mut out = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut out).unwrap();
    writer.join().unwrap();
    child.wait().unwrap();
    out
}
