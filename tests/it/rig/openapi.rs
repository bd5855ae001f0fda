//! Responses held against the definitions of the specification (`tests/data/openapi`).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{LazyLock, OnceLock},
};

use jsonschema::Validator;
use ruma::{EventId, MxcUri, RoomAliasId, RoomId, ServerName, UserId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Statuses that any request may be refused with, beyond those that a definition names
/// ([common errors](https://spec.matrix.org/v1.19/client-server-api/#common-error-codes)); the last
/// three where another server or the database does not answer.
const COMMON: [u16; 12] = [400, 401, 403, 404, 405, 413, 415, 416, 429, 502, 503, 504];

/// Where a definition says otherwise than the text of the specification, or than its other
/// definitions, and what was answered is right all the same.
const EXCEPTIONS: [Exception; 10] = [
    // All that is known of an invitation is the stripped state that came with it.
    Exception {
        operation: ("GET", "/_matrix/client/v3/initialSync"),
        status: 200,
        problem: "/invite: \"",
    },
    // A whole event is an object as well, and so fits both of what may be.
    Exception {
        operation: (
            "GET",
            "/_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}",
        ),
        status: 200,
        problem: "is valid under more than one of the schemas listed in the 'oneOf' keyword",
    },
    // There is no other way to say that there is no such server; clients take it as that.
    Exception {
        operation: ("GET", "/_matrix/client/v3/voip/turnServer"),
        status: 200,
        problem: "is a required property",
    },
    // Its description asks for user-interactive authentication, the way to which is no error.
    Exception {
        operation: ("POST", "/_matrix/client/v3/keys/device_signing/upload"),
        status: 401,
        problem: "\"errcode\" is a required property",
    },
    // The specification's conformance suite wants both names of a member, also where there is none.
    Exception {
        operation: ("GET", "/_matrix/client/v3/rooms/{roomId}/joined_members"),
        status: 200,
        problem: "null is not of type \"string\"",
    },
    // No format of events has an origin any more.
    Exception {
        operation: ("PUT", "/_matrix/federation/v1/invite/{roomId}/{eventId}"),
        status: 200,
        problem: "is not valid under any of the schemas listed in the 'anyOf' keyword",
    },
    Exception {
        operation: ("PUT", "/_matrix/federation/v2/invite/{roomId}/{eventId}"),
        status: 200,
        problem: "/event: \"origin\" is a required property",
    },
    Exception {
        operation: ("GET", "/_matrix/federation/v1/make_join/{roomId}/{userId}"),
        status: 200,
        problem: "/event: \"origin\" is a required property",
    },
    Exception {
        operation: ("GET", "/_matrix/federation/v1/make_knock/{roomId}/{userId}"),
        status: 200,
        problem: "/event: \"origin\" is a required property",
    },
    Exception {
        operation: ("GET", "/_matrix/federation/v1/make_leave/{roomId}/{userId}"),
        status: 200,
        problem: "/event: \"origin\" is a required property",
    },
];

/// What is wrong by the definition alone.
struct Exception {
    operation: (&'static str, &'static str),
    status: u16,
    /// What is found wrong, as a part of each line.
    problem: &'static str,
}

static DEFINITIONS: LazyLock<Definitions> = LazyLock::new(|| {
    let text = include_str!("../../data/openapi/responses.json");
    serde_json::from_str(text).unwrap()
});

#[derive(Deserialize)]
struct Definitions {
    operations: Vec<Operation>,
    #[serde(rename = "$defs")]
    defs: Map<String, Value>,
}

/// One method of one path.
#[derive(Deserialize)]
pub(super) struct Operation {
    method: String,
    path: String,
    /// By status, by content type.
    responses: HashMap<u16, BTreeMap<String, Schemas>>,
}

/// Schemas of which one has to fit.
#[derive(Deserialize)]
#[serde(from = "Vec<Value>")]
struct Schemas {
    of: Vec<Value>,
    compiled: OnceLock<Validator>,
}

impl From<Vec<Value>> for Schemas {
    fn from(of: Vec<Value>) -> Self {
        Self {
            of,
            compiled: OnceLock::new(),
        }
    }
}

/// The error that every definition means where it says nothing else.
static ERROR: LazyLock<Schemas> = LazyLock::new(|| {
    Schemas::from(vec![
        json!({ "$ref": "#/$defs/client-server.errors.error" }),
    ])
});

impl Operation {
    /// The operation that a request asks for; none for what the specification does not know.
    pub(super) fn of(method: &str, path: &str) -> Option<&'static Self> {
        let operations = DEFINITIONS.operations.iter();
        operations
            .filter(|operation| operation.method == method)
            .filter_map(|operation| Some((literals(&operation.path, path)?, operation)))
            .max_by_key(|(literals, _)| *literals)
            .map(|(_, operation)| operation)
    }

    /// Whether a response with this status is a file, and not JSON.
    pub(super) fn is_file(&self, status: u16) -> bool {
        // A part of one, where a client asks for that.
        let status = if status == 206 { 200 } else { status };
        let kinds = self.responses.get(&status);
        kinds.is_some_and(|kinds| !kinds.is_empty() && !kinds.contains_key("application/json"))
    }

    /// Whether browsers are sent there, and not clients.
    pub(super) fn is_for_browsers(&self) -> bool {
        self.path
            .starts_with("/_matrix/client/v3/login/sso/redirect")
    }

    /// Fails where a response is not what the specification promises.
    pub(super) fn check(&self, status: u16, content_type: &str, body: &[u8]) {
        if let Err(problem) = self.problem(status, content_type, body) {
            let operation = (self.method.as_str(), self.path.as_str());
            let excuses = |exception: &Exception| {
                (exception.operation, exception.status) == (operation, status)
                    && problem.lines().all(|line| line.contains(exception.problem))
            };
            assert!(
                EXCEPTIONS.iter().any(excuses),
                "not as the specification defines it: {} {} answered {status}: {problem}\n{}",
                self.method,
                self.path,
                String::from_utf8_lossy(body),
            );
        }
    }

    fn problem(&self, status: u16, content_type: &str, body: &[u8]) -> Result<(), String> {
        let schemas = match self.responses.get(&status) {
            Some(kinds) if kinds.is_empty() => return Ok(()),
            Some(kinds) => kinds
                .get("application/json")
                .ok_or_else(|| "this is no JSON by its definition".to_owned())?,
            None if COMMON.contains(&status) => &*ERROR,
            None => return Err("no such status".to_owned()),
        };
        if content_type != "application/json" {
            return Err(format!("content type {content_type:?}"));
        }
        let value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        // Who is not known at all does not get as far as to proving who they are.
        match schemas.fits(&value) {
            Err(_) if status == 401 => ERROR.fits(&value),
            result => result,
        }
    }
}

impl Schemas {
    fn fits(&self, value: &Value) -> Result<(), String> {
        let validator = self.compiled.get_or_init(|| compile(&self.of));
        let problems: Vec<String> = validator
            .iter_errors(value)
            .take(5)
            .map(|error| format!("{}: {error:.500}", error.instance_path()))
            .collect();
        if problems.is_empty() {
            return Ok(());
        }
        Err(problems.join("\n"))
    }
}

/// How many segments of a path are the very ones of a template; `None` where it does not fit.
fn literals(template: &str, path: &str) -> Option<usize> {
    let segments = template.split('/');
    let mut given = path.split('/');
    let mut literals = 0;
    for segment in segments {
        let is_variable = segment.starts_with('{');
        match given.next() {
            Some(given) if is_variable || given == segment => literals += usize::from(!is_variable),
            // Without a slash at its end the path means the empty state key.
            None if segment == "{stateKey}" => {}
            _ => return None,
        }
    }
    given.next().is_none().then_some(literals)
}

/// Schemas with the definitions that they lean on, and no others: most lean on few.
fn compile(schemas: &[Value]) -> Validator {
    let mut defs = Map::new();
    let mut open: Vec<&Value> = schemas.iter().collect();
    while let Some(value) = open.pop() {
        match value {
            Value::Array(list) => open.extend(list),
            Value::Object(map) => {
                open.extend(map.values());
                let name = map.get("$ref").and_then(Value::as_str);
                let name = name.and_then(|name| name.strip_prefix("#/$defs/"));
                if let Some(name) = name.filter(|name| !defs.contains_key(*name)) {
                    let definition = &DEFINITIONS.defs[name];
                    defs.insert(name.to_owned(), definition.clone());
                    open.push(definition);
                }
            }
            _ => {}
        }
    }
    let schema = match schemas {
        [one] => json!({ "allOf": [one], "$defs": defs }),
        several => json!({ "anyOf": several, "$defs": defs }),
    };
    jsonschema::options()
        .should_validate_formats(true)
        .with_format("mx-event-id", |text: &str| EventId::parse(text).is_ok())
        .with_format("mx-mxc-uri", |text: &str| {
            <&MxcUri>::from(text).is_valid() || text.is_empty()
        })
        .with_format("mx-room-alias", |text: &str| {
            RoomAliasId::parse(text).is_ok()
        })
        .with_format("mx-room-id", |text: &str| RoomId::parse(text).is_ok())
        .with_format("mx-server-name", |text: &str| {
            ServerName::parse(text).is_ok()
        })
        .with_format("mx-user-id", |text: &str| UserId::parse(text).is_ok())
        .build(&schema)
        .unwrap()
}

#[test]
fn definitions_are_found_and_hold() {
    fn find(method: &str, path: &str) -> Option<&'static str> {
        Operation::of(method, path).map(|of| of.path.as_str())
    }
    let versions = "/_matrix/client/versions";
    assert_eq!(find("GET", versions), Some(versions));
    assert_eq!(find("POST", versions), None);
    let state = "/_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}";
    for key in ["", "/", "/key"] {
        let path = format!("/_matrix/client/v3/rooms/!r/state/m.room.name{key}");
        assert_eq!(find("GET", &path), Some(state), "{key}");
    }
    let profile = "/_matrix/federation/v1/query/profile";
    assert_eq!(find("GET", profile), Some(profile));

    for operation in &DEFINITIONS.operations {
        for kinds in operation.responses.values() {
            if let Some(schemas) = kinds.get("application/json") {
                compile(&schemas.of);
            }
        }
    }
    let whoami = Operation::of("GET", "/_matrix/client/v3/account/whoami").unwrap();
    let told = |status, body: Value| {
        whoami.problem(status, "application/json", body.to_string().as_bytes())
    };
    assert_eq!(told(200, json!({ "user_id": "@a:b" })), Ok(()));
    assert_eq!(told(404, json!({ "errcode": "M_UNRECOGNIZED" })), Ok(()));
    assert_eq!(told(500, json!({ "errcode": "M_UNKNOWN" })).ok(), None);
    assert_eq!(told(200, json!({ "user_id": "a" })).ok(), None);
    assert_eq!(told(403, json!({ "error": "no code" })).ok(), None);
}
