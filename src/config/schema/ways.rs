//! Ways in that are decided elsewhere.

use core::time::Duration;
use std::path::PathBuf;

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
        /// rights by it. Default: absent. Cost: about 200 bytes a rule for each client.
        acl_claim: Option<String> = None;
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

choice! {
    /// Where clients put a token.
    pub enum TokenIn {
        /// In the password.
        Password = "password",
        /// In the user name.
        UserName = "user_name",
    }
}
