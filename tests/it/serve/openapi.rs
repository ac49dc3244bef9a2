//! The description of the API in OpenAPI, compared with the routes and the answers.

use serde_json::Value;

use crate::scene::daemon::{Daemon, LOCAL};
use crate::scene::sandbox::{Sandbox, wait_for};

#[test]
fn the_openapi_document_names_every_route_and_no_other() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, LOCAL);
    daemon.repository("acme/widget");
    daemon.add("acme/widget", sandbox.bare("mirror.git").to_str().unwrap());
    let document = daemon.ask_with("GET", "/api/v4/openapi.json", "", &[]).unwrap().json();
    assert_eq!(document["openapi"], "3.1.0");
    let source = include_str!("../../../src/serve/api/mod.rs");
    let mut routes: Vec<&str> = source
        .split("\"/api/v4/")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .filter(|route| *route != "openapi.json")
        .collect();
    routes.sort_unstable();
    let paths = document["paths"].as_object().unwrap();
    let mut documented: Vec<&str> = paths.keys().map(|path| path.trim_start_matches('/')).collect();
    documented.sort_unstable();
    assert_eq!(documented, routes);
    let methods = ["get", "post", "put", "delete", "patch"];
    for (path, operations) in paths {
        let plain = path.replace("{id}", "acme%2Fwidget").replace("{mirror_id}", "77");
        for method in methods {
            let answer = daemon.ask(&method.to_uppercase(), &format!("/api/v4{plain}"), "").unwrap();
            let is_there = answer.status != 405;
            assert_eq!(is_there, operations[method].is_object(), "{method} {path}: {answer:?}");
        }
        for (method, operation) in
            operations.as_object().unwrap().iter().filter(|(name, _)| methods.contains(&&***name))
        {
            assert!(operation["summary"].is_string() && operation["responses"].is_object(), "{method} {path}");
        }
    }
    // An answer has the documented fields and no others. Some are there only if there is something to say.
    let schema = &document["components"]["schemas"]["RemoteMirror"];
    let is_documented = |answer: &Value| {
        let fields = answer.as_object().unwrap();
        let unknown: Vec<&String> = fields.keys().filter(|field| schema["properties"][&**field].is_null()).collect();
        let missing =
            schema["required"].as_array().unwrap().iter().filter(|field| answer[field.as_str().unwrap()].is_null());
        let missing: Vec<_> = missing.filter(|field| !fields.contains_key(field.as_str().unwrap())).collect();
        assert!(unknown.is_empty() && missing.is_empty(), "{unknown:?} {missing:?}");
    };
    is_documented(&daemon.api("GET", "projects/1/remote_mirrors/1", "").json());
    std::fs::remove_dir_all(sandbox.path("mirror.git")).unwrap();
    daemon.api("POST", "projects/1/remote_mirrors/1/sync", "");
    let failed = || daemon.api("GET", "projects/1/remote_mirrors/1", "").json();
    wait_for("the failure", || failed()["update_status"] == "failed");
    assert!(failed()["cause"].is_string() && failed()["failing_since"].is_string());
    is_documented(&failed());
}
