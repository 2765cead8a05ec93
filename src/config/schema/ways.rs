//! Ways in that are decided elsewhere.

use core::time::Duration;
use std::{collections::BTreeMap, path::PathBuf};

use super::seconds;
use crate::config::{
    option::{choice, section},
    value::Bytes,
};

section! {
    /// Tokens of one issuer.
    pub struct Jwt {
        /// Public keys in PEM, one or several: RSA from 2048 bits, ECDSA on P-256 or P-384, Ed25519. One of `key_file`, `secret_file`,
        /// `jwks_file` and `jwks_url` is required; what a token may be signed with follows from the key, and `none` is never taken. Changes of these
        /// files count within a second; who came with a key that is gone is disconnected. Default: absent. Cost: a kilobyte a key.
        key_file: Option<PathBuf> = None;
        /// A secret that the issuer and this broker share, at least 16 bytes and better 32: HS256, HS384, HS512. Default: absent.
        /// Cost: whoever reads it can make tokens.
        secret_file: Option<PathBuf> = None;
        /// Whether the secret is what the file says in base64, not its text as it stands. Cost: none.
        secret_base64: bool = false;
        /// A JSON Web Key Set (RFC 7517), at most 64 keys. Default: absent. Cost: a kilobyte a key.
        jwks_file: Option<PathBuf> = None;
        /// The address of such a set, `https://…`; keys for HMAC are not taken from there. It is fetched now and then, and, at most every ten
        /// seconds, when a token names a key that is not in it. Default: absent. Cost: a thread.
        jwks_url: Option<String> = None;
        /// How often the set is fetched from its address. Who came with a key that is not in it any more is disconnected.
        /// Cost: a request.
        jwks_refresh: Duration = seconds(900), in seconds(10) => seconds(86_400);
        /// How long the keys count that were fetched last, when the address does not answer; then tokens are refused (0x88), and who is
        /// connected stays. Cost: so long a key counts that was withdrawn meanwhile.
        jwks_keep: Duration = seconds(86_400), in seconds(60) => seconds(30 * 86_400);
        /// Certificates of the authorities, in PEM, that the address is trusted by. Default: absent, those of the system.
        ca_file: Option<PathBuf> = None;
        /// What the claim `iss` must be. Of several issuers the first decides whose name a token has, or that has none here.
        /// Default: absent, anything. Cost: a token of whoever has the same keys is taken.
        issuer: Option<String> = None;
        /// What the claim `aud` must be, or one of these. Default: absent, anything. Cost: a token that its client was given for something
        /// else is taken.
        audience: Vec<String> = Vec::new();
        /// How far the clocks of issuer and broker may differ: a token counts so much earlier and later. Cost: none.
        leeway: Duration = seconds(5), in seconds(0) => seconds(600);
        /// The claim that is the user name, in the place of what the client says; claims inside of others are `outer.inner`. A token
        /// without it is refused. Cost: none.
        user_claim: String = "sub".to_owned();
        /// The claim that the client id must be equal to. Default: absent, any client id. Cost: none.
        client_id_claim: Option<String> = None;
        /// The claim with what the client may do: `{"pub": ["a/%u/#"], "sub": ["b/#"], "all": []}`, or a list of `{"permission": "allow",
        /// "action": "publish", "topic": "a/#"}`, at most 128; beside the rules of the configuration. Who has a token without it has no
        /// rights by it; a token with a rule that is not understood (another key, an odd value) is refused.
        /// Default: absent. Cost: about 200 bytes a rule for each client.
        acl_claim: Option<String> = None;
        /// The claim that names the tenant of the client: one of `tenants`, or, where none has this name, one whose topics begin with it; a
        /// token without it is refused. Default: absent. Cost: whoever makes tokens makes tenants.
        tenant_claim: Option<String> = None;
        /// Whether a token without an end (`exp`) is refused. When a token ends, its client is disconnected (0xA0).
        /// Cost of `false`: who has such a token has it for ever.
        require_expiry: bool = true;
        /// Where clients put the token: in the `"password"`, or in the `"user_name"`. Cost: none.
        token_in: TokenIn = TokenIn::Password;
        /// Longest token that is looked at; longer ones are refused. Cost: its claims are kept while its client is connected.
        token_bytes_max: Bytes = Bytes(8192), in Bytes(256) => Bytes(65_535);
        /// Listeners by name on which they are taken. Default: absent, all; `[]` is refused.
        listeners: Vec<String> = Vec::new();
    }
}

section! {
    /// A program that is asked over HTTP.
    pub struct Http {
        /// The address that is asked whether a client may enter, whom neither a token nor the password file says anything about. In it, and
        /// in the fields, `${username}`, `${password}`, `${clientid}`, `${peerhost}`, `${listener}` and `${cert_common_name}` stand for
        /// what the client is; in the path a value with `/` or `\`, or that is `.` or `..`, says no.
        /// Default: absent, it is not asked. Cost: a request for each CONNECT; a client waits for it.
        connect_url: Option<String> = None;
        /// The address that is asked whether a client may publish or subscribe, where no rule says it; beside the others there are
        /// `${topic}`, `${action}` (`publish`, `subscribe`), `${access}` (2, 4), and `${qos}` and `${retain}` of what is published. Who may
        /// subscribe receives.
        /// Default: absent, it is not asked. Cost: a request for each topic that was not asked lately; the client waits, nobody else.
        acl_url: Option<String> = None;
        /// Whether the fields are sent with `"post"`, or, as the query of the address, with `"get"`.
        /// Cost of `"get"`: passwords are in the log of the server that is asked.
        method: HttpMethod = HttpMethod::Post;
        /// Whether POST sends `"json"` or a `"form"`. Cost: none.
        format: HttpFormat = HttpFormat::Json;
        /// What counts of an answer: `"body"`: 2xx with nothing, `ok`, `{"result": "allow"}` or `{"ok": true}` says yes; `deny`,
        /// `{"result": "deny"}`, `{"result": "ignore"}`, `{"ok": false}` and 4xx say no; all else is a failure. `"status"`: every 2xx says yes.
        /// `is_superuser` and `acl` in an answer to CONNECT are rights. Cost of `"status"`: any page that is there lets everybody in.
        answer: HttpAnswer = HttpAnswer::Body;
        /// What becomes of a client when there is no answer in time: it is to `"deny"`, or to `"allow"`.
        /// Cost of `"allow"`: who keeps the program from answering enters as anybody, and as one of no tenant where the program names them;
        /// so together with `tenants` it is refused where there is a `connect_url`.
        on_failure: OnFailure = OnFailure::Deny;
        /// How long an answer may take, with the time that its question waits for its turn the double. Cost: the client waits.
        timeout: Duration = seconds(5), in Duration::from_millis(10) => seconds(14);
        /// Questions that are out at once. Cost: a thread and a connection each.
        connections: u32 = 8, in 1 => 256;
        /// Questions that wait for their turn; what comes beyond is a failure (0x89). Cost: about 500 bytes each.
        waiting_max: u32 = 1024, in 1 => 1_000_000;
        /// How long an answer is remembered; `"0s"`: not at all; SIGHUP forgets all. Cost: so long a password counts that was changed there.
        cache_time: Duration = seconds(30), in seconds(0) => seconds(86_400);
        /// Answers that are remembered. Cost: about 100 bytes each.
        cache_max: u32 = 65_536, in 0 => 10_000_000;
        /// Headers that are sent along, such as `authorization = "Bearer …"`.
        headers: BTreeMap<String, String> = BTreeMap::new();
        /// The fields of `connect_url`, in the place of `username`, `password`, `clientid` and `peerhost`.
        connect_fields: BTreeMap<String, String> = BTreeMap::new();
        /// The fields of `acl_url`, in the place of `username`, `clientid`, `peerhost`, `topic`, `action`, `acc`, `qos` and `retain`.
        acl_fields: BTreeMap<String, String> = BTreeMap::new();
        /// Certificates of the authorities, in PEM, that the program is trusted by. Default: absent, those of the system.
        ca_file: Option<PathBuf> = None;
        /// Listeners by name about whose clients it is asked; of several programs for one listener, the first. Default: absent, all; `[]` is
        /// refused.
        listeners: Vec<String> = Vec::new();
    }
}

choice! {
    /// How fields are sent.
    pub enum HttpMethod {
        /// With POST.
        Post = "post",
        /// With GET.
        Get = "get",
    }
}

choice! {
    /// What fields are sent as.
    pub enum HttpFormat {
        /// An object of JSON.
        Json = "json",
        /// A form.
        Form = "form",
    }
}

choice! {
    /// What counts of an answer.
    pub enum HttpAnswer {
        /// Its body, too.
        Body = "body",
        /// Its status alone.
        Status = "status",
    }
}

choice! {
    /// What becomes of a client about which there is no answer.
    pub enum OnFailure {
        /// No.
        Deny = "deny",
        /// Yes.
        Allow = "allow",
    }
}

choice! {
    /// Where clients put a token.
    pub enum TokenIn {
        /// In the password.
        Password = "password",
        /// In the user name.
        UserName = "user_name",
    }
}
