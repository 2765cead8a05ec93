#!/usr/bin/env python3
"""Starts Sundew from a description of mosquitto's configuration: `adapter.py SUNDEW_BINARY DESCRIPTION.json`.

The runner of mosquitto's own scripts describes in JSON the configuration that a script asks for; see README.md. What Sundew has no
option for is named on the standard error, so that a failure explains itself. Becomes the broker (exec): signals go to it directly."""

import json
import os
import shutil
import sys

VERSIONS = {"3": "3.1", "4": "3.1.1", "5": "5.0"}
UNLIMITED = "unlimited"


def chain(tls, place):
    """OpenSSL completes the chain of its own certificate from the authorities of its clients; ours is in one file."""
    path = "%s.%s.chain.pem" % (place, os.path.basename(tls["certfile"]))
    with open(path, "w", encoding="utf-8") as whole:
        for part in [tls["certfile"]] + [tls["cafile"]] * ("cafile" in tls):
            with open(part, encoding="utf-8") as file:
                whole.write(file.read() + "\n")
    return path


def listener(described, missing, place):
    address = "unix:" + described["unix_path"] if "unix_path" in described else "%s:%d" % (described["bind"], described["port"])
    lines = ["[[listeners]]", "address = %s" % json.dumps(address)]
    if described.get("protocol") == "websockets":
        lines.append('protocol = "websocket"')
    if described.get("max_connections", -1) >= 0:
        lines.append("connections_max = %d" % described["max_connections"])
    security = described["security"]
    # A client without a certificate does not get in where certificates name the users.
    by_certificate = any(described.get("tls", {}).get(key) for key in ("use_identity_as_username", "use_subject_as_username"))
    by_default = "password_file" not in security and not by_certificate
    lines.append("allow_anonymous = %s" % json.dumps(described.get("listener_allow_anonymous", security.get("allow_anonymous", by_default) and not by_certificate)))
    for key in ("password_file", "acl_file"):
        if key in security:
            lines.append("%s = %s" % (key, json.dumps(security[key])))
    if "mount_point" in described:
        lines.append("mount_point = %s" % json.dumps(described["mount_point"]))
    if "max_qos" in described:
        lines.append("maximum_qos = %d" % described["max_qos"])
    versions = [VERSIONS[word] for word in map(str.strip, described.get("accept_protocol_versions", "").split(",")) if word in VERSIONS]
    if versions:
        lines.append("allowed_versions = %s" % json.dumps(versions))
    known = ("listener_allow_anonymous", "port", "bind", "unix_path", "protocol", "max_connections", "max_qos", "mount_point", "accept_protocol_versions", "security", "tls")
    missing += ["listener: " + key for key in described if key not in known]
    tls = described.get("tls", {})
    if "certfile" in tls:
        lines += ["[listeners.tls]", "certificate = %s" % json.dumps(chain(tls, place)), "key = %s" % json.dumps(tls["keyfile"])]
        if "cafile" in tls:
            lines.append("client_ca = %s" % json.dumps(tls["cafile"]))
        names = {"use_identity_as_username": "common_name", "use_subject_as_username": "subject"}
        named = [name for key, name in names.items() if tls.get(key)]
        otherwise = "optional" if named else "none"
        lines.append('client_certificate = "%s"' % ("required" if tls.get("require_certificate") else otherwise))
        lines += ['user_name = "%s"' % name for name in named]
        if "crlfile" in tls:
            lines.append("client_crl = %s" % json.dumps(tls["crlfile"]))
        missing += ["tls: " + key for key in tls if key not in ("certfile", "keyfile", "cafile", "require_certificate", "crlfile", *names)]
    return lines


def limits(described, sections, missing):
    for key, value in described.items():
        if key == "max_packet_size":
            sections["limits"].append('packet_bytes_max = "%dB"' % value)
        elif key == "max_keepalive":
            sections["mqtt"].append('keep_alive_max = "%ds"' % value)
        elif key == "max_inflight_messages":
            sections["mqtt"].append("max_inflight = %d" % (value or 65535))
            sections["mqtt"].append("receive_maximum = %d" % (value or 65535))
        elif key == "max_queued_messages":
            sections["queue"].append("messages_max = %s" % (value or json.dumps(UNLIMITED)))
        elif key == "max_queued_bytes":
            sections["queue"].append('bytes_max = "%dB"' % (value or 1 << 40))
        elif key == "global_max_clients":
            sections["limits"].append("sessions_max = %d" % value)
        elif key == "global_max_connections":
            sections["limits"].append("connections_max = %d" % value)
        else:
            missing.append("limits: " + key)


def storage(described):
    """A directory beside the place where mosquitto would have its database. A file stands for that, since the scripts look for it: a
    script that has removed it wants to begin anew."""
    if not described.get("persistence"):
        return ["enabled = false"]
    place = os.path.join(described.get("persistence_location", "."), described.get("persistence_file", "mosquitto.db"))
    directory = os.path.abspath(place) + ".sundew"
    if not os.path.exists(place):
        shutil.rmtree(directory, ignore_errors=True)
        open(place, "w", encoding="utf-8").close()
    # As mosquitto: the will of a client that was connected at an unclean stop is published at the start.
    return ["enabled = true", "directory = %s" % json.dumps(directory), 'will_grace = "0s"']


def options(described, sections, missing):
    for key, value in described.items():
        if key.startswith("persistence") or key.startswith("autosave"):
            continue  # see `storage`
        if key == "retain_available":
            sections["mqtt"].append("retain_available = %s" % json.dumps(value))
        elif key == "sys_interval":
            sections["sys"].append('interval = "%ds"' % value)
        elif key == "check_retain_source":
            sections["auth"].append("check_retained_source = %s" % json.dumps(value))
        elif key == "queue_qos0_messages":
            sections["queue"].append("qos0_offline = %s" % json.dumps(value))
        elif key not in ("set_tcp_nodelay", "connection_messages", "per_listener_settings"):
            missing.append("options: " + key)


def main():
    binary, path = sys.argv[1:3]
    with open(path, encoding="utf-8") as file:
        described = json.load(file)
    missing = ["unknown: %s" % key for key, _ in described["unknown"]]
    # As mosquitto: QoS 2 delivered at PUBREL, 20 messages under way, 200 slashes, any client id, characters checked, the newest of a full queue dropped.
    sections = {"limits": ["topic_levels_max = 201", "client_id_bytes_max = 65535", "user_properties_max = 6000"], "mqtt": ["strict_utf8 = true", 'qos2_delivery = "release"'], "queue": ['policy = "drop_newest"'], "auth": ['wide_subscriptions = "grant"', 'refused_login = "not_authorized"', 'watch_interval = "0s"'], "sys": [], "storage": storage(described["options"])}
    if "max_inflight_messages" not in described["limits"]:
        sections["mqtt"] += ["max_inflight = 20", "receive_maximum = 20"]
    limits(described["limits"], sections, missing)
    options(described["options"], sections, missing)
    security = dict(described["security"] or described["listeners"][0]["security"])
    own = ("allow_anonymous", "password_file", "passwords", "acl_file", "acl")
    common = {key: value for key, value in security.items() if key not in own}
    for other in described["listeners"]:
        if {key: value for key, value in other["security"].items() if key not in own} != common:
            missing.append("security of each listener")
    if "auto_id_prefix" in security:
        sections["mqtt"].append("assigned_client_id_prefix = %s" % json.dumps(security.pop("auto_id_prefix")))
    if "allow_zero_length_clientid" in security:
        sections["mqtt"].append("allow_empty_client_id = %s" % json.dumps(security.pop("allow_zero_length_clientid")))
    missing += ["security: " + key for key in security if key not in own]
    lines = []
    for name, content in sections.items():
        lines += ["[%s]" % name, *content]
    for one in described["listeners"]:
        lines += listener(one, missing, path)
    configuration = path + ".toml"
    with open(configuration, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    if missing:
        print("no option for: " + ", ".join(sorted(set(missing))), file=sys.stderr, flush=True)
    os.execv(binary, [binary, "--config", configuration])


if __name__ == "__main__":
    main()
