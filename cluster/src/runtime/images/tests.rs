use super::*;

fn map(rules: &[&str]) -> ImageMap {
    let mut map = ImageMap::new();
    for rule in rules {
        map.add_flag(rule).unwrap();
    }
    map
}

#[test]
fn cluster_b6_most_specific_rule_wins() {
    let rules = [
        "*=any",
        "shop/*=shop",
        "shop/api=untagged",
        "shop/api:*=wild",
        "shop/api:1.*=one",
        "shop/api:1.2=exact",
        "reg.example:5000/x:*=port",
        "shop/api:9=first",
        "shop/api:9=second",
    ];
    let map = map(&rules);
    let cases = [
        ("exact tag", "shop/api:1.2", "exact"),
        ("wildcard tag", "shop/api:1.3", "one"),
        ("any tag, later of equals", "shop/api:2", "wild"),
        ("no tag is latest", "shop/api", "wild"),
        ("wildcard name", "shop/web:1", "shop"),
        ("anything", "nginx", "any"),
        ("registry with port", "reg.example:5000/x:7", "port"),
        ("later rule overrides", "shop/api:9", "second"),
        ("default registry", "docker.io/shop/api:1.2", "exact"),
    ];
    for (name, image, command) in cases {
        assert_eq!(
            map.command(image),
            Some(&[command.to_owned()][..]),
            "{name}"
        );
    }
}

#[test]
fn cluster_b6_no_rule_means_no_command() {
    let map = map(&["shop/api:1=x"]);
    assert_eq!(map.command("shop/api:2"), None);
    assert_eq!(map.command("shop/web:1"), None);
    let echo = map.command("sealane/echo:v2").unwrap();
    assert_eq!(echo, ["/proc/self/exe", "echo"]);
    assert_eq!(map.command("sealane:0.1.0").unwrap(), ["/proc/self/exe"]);
}

#[test]
fn cluster_b6_command_line_is_split_like_a_shell() {
    let cases: [(&str, &[&str]); 6] = [
        ("a b  c", &["a", "b", "c"]),
        (
            "sh -c 'echo \"$X\"; exit 1'",
            &["sh", "-c", "echo \"$X\"; exit 1"],
        ),
        (r#"a "b \"c\" \n" d"#, &["a", r#"b "c" \n"#, "d"]),
        (r"a\ b c\'", &["a b", "c'"]),
        ("a '' b", &["a", "", "b"]),
        ("x=1 y'z'w", &["x=1", "yzw"]),
    ];
    for (line, words) in cases {
        let map = map(&[&format!("i={line}")]);
        assert_eq!(map.command("i").unwrap(), words, "{line}");
    }
}

#[test]
fn cluster_b6_bad_rules_are_named() {
    let cases = [
        ("shop/api", "expected NAME[:TAG]=COMMAND"),
        ("=x", "is not an image name"),
        ("a b=x", "is not an image name"),
        ("a=", "the command is empty"),
        ("a='x", "a single quote does not close"),
        ("a=\"x", "a double quote does not close"),
        ("a=x\\", "the command ends in a backslash"),
    ];
    for (rule, reason) in cases {
        let error = ImageMap::new().add_flag(rule).unwrap_err().to_string();
        assert!(error.contains(reason), "{rule}: {error}");
        assert!(error.contains(&format!("{rule:?}")), "{rule}: {error}");
    }
}

#[test]
fn cluster_b6_images_file() {
    let mut map = ImageMap::new();
    map.add_file("shop/api:*: ./api --port 8000\nshop/web: [./web, 'a b']\n")
        .unwrap();
    assert_eq!(
        map.command("shop/api:3").unwrap(),
        ["./api", "--port", "8000"]
    );
    assert_eq!(map.command("shop/web:3").unwrap(), ["./web", "a b"]);
    map.add_flag("shop/web=other").unwrap();
    assert_eq!(map.command("shop/web:3").unwrap(), ["other"]);
    assert!(map.add_file("- a\n- b\n").is_err());
}

#[test]
fn cluster_b6_image_reference_grammar() {
    let digest = format!("a/b@sha256:{}", "0".repeat(64));
    let good = [
        "nginx",
        "nginx:1",
        "localhost/x",
        "localhost:5000/x/y:t",
        "quay.io/a-b/c_d/e.f:V1.2-x_y",
        &digest,
    ];
    for image in good {
        assert!(Reference::parse(image).is_some(), "{image}");
    }
    for image in [
        "",
        "Bad Image",
        "Nginx",
        "a//b",
        "a:",
        "a:b c",
        "a/-b",
        "a:.x",
        "a@sha256:1",
        ":5",
    ] {
        assert!(Reference::parse(image).is_none(), "{image}");
    }
}
