//! Blocks, imports and variables that are refused.

use super::refused::problems;

#[test]
fn dns_corefile_structure_that_is_refused() {
    for (text, expected) in [
        ("", "Corefile:1 - there is no server block"),
        ("{\n}\n", "Corefile:1 - a block needs a name"),
        (
            ".:53 {\n  errors\n",
            "Corefile:1 - the '{' of '.:53' is never closed",
        ),
        (
            ".:53 {\n  cache {\n}\n",
            "Corefile:1 - the '{' of '.:53' is never closed",
        ),
        (
            ".:53 {\n  cache {\n",
            "Corefile:2 - the '{' of 'cache' is never closed",
        ),
        (
            ".:53 {\n}\n}\n",
            "Corefile:3 - there is no '{' that this '}' closes",
        ),
        (
            ".:53 {\n  errors }\n",
            "Corefile:2 - '}' must stand on a line of its own",
        ),
        (
            ".:53 {\n  cache { success 9 }\n}\n",
            "Corefile:2 - '}' must stand on a line of its own",
        ),
        (
            ".:53 {\n  cache\n  {\n}\n}\n",
            "Corefile:3 - '{' must stand on the line of",
        ),
        (
            ".:53,\n{\n}\n",
            "Corefile:1 - a name has to follow the comma",
        ),
        ("a,", "Corefile:1 - a name has to follow the comma"),
        (
            ".:53 {\n  cache {\n    success {\n    }\n  }\n}\n",
            "Corefile:3 - 'cache' has no braces within its braces",
        ),
        (
            ".:53 {\n  import\n}\n",
            "Corefile:2 - 'import' takes one argument",
        ),
        (
            ".:53 {\n  import a b\n}\n",
            "Corefile:2 - 'import' takes one argument",
        ),
        (
            ".:53 {\n  import none\n}\n",
            "Corefile:2 - cannot import none: ",
        ),
        (
            ".:53 {\n  import */*\n}\n",
            "Corefile:2 - 'import */*': a pattern may have one wildcard",
        ),
        (
            "(a) {\n  log\n",
            "Corefile:1 - the '{' of '(a)' is never closed",
        ),
        (
            "(a) {\n}\n(a) {\n}\n",
            "Corefile:3 - there is a snippet '(a)' already",
        ),
        ("import self", "self:1 - imports are over 16 deep"),
        (
            "import bomb",
            "bomb:2 - with its imports the Corefile has over 200000 words",
        ),
        (
            ".:53 {\n  import part\n}\n",
            "part:2 - unknown directive 'bogus'; known are: acl, any,",
        ),
        (
            "foo://.:53 {\n}\n",
            "Corefile:1 - 'foo://' is unknown; known are: dns://, tls://",
        ),
        ("grpc://. {\n}\n", "Corefile:1 - grpc:// is not supported"),
        (
            ".:99999 {\n}\n",
            "Corefile:1 - '.:99999': ports end at 65535",
        ),
        (".:0 {\n}\n", "Corefile:1 - '.:0': there is no port 0"),
        (
            "a..b {\n}\n",
            "Corefile:1 - 'a..b' is no name: a label is empty",
        ),
        (
            "10.0.0.0/33 {\n}\n",
            "Corefile:1 - '10.0.0.0/33': the length of the prefix is 0 to 32",
        ),
        (
            ".:53 {\n whoami\n}\na. .:53 {\n whoami\n}\n",
            "Corefile:4 - . at port 53 is served already by the block at Corefile:1",
        ),
        (
            ".:53 {\n whoami\n bind 10.0.0.1\n}\n.:53 {\n whoami\n}\n",
            "Corefile:5 - . at port 53 is served already by the block at Corefile:1",
        ),
    ] {
        let files = [
            ("self", "import self\n"),
            (
                "bomb",
                "(a) {\n x x x x x x x x x x x x x x x x x x x x\n}\nimport b1\n",
            ),
            (
                "b1",
                "(b) {\n import a\n import a\n import a\n import a\n import a\n import a\n}\nimport b2\n",
            ),
            (
                "b2",
                "(c) {\n import b\n import b\n import b\n import b\n import b\n import b\n}\nimport b3\n",
            ),
            (
                "b3",
                "(d) {\n import c\n import c\n import c\n import c\n import c\n import c\n}\nimport b4\n",
            ),
            (
                "b4",
                "(e) {\n import d\n import d\n import d\n import d\n import d\n import d\n}\nimport b5\n",
            ),
            (
                "b5",
                "(f) {\n import e\n import e\n import e\n import e\n import e\n import e\n}\nimport f\nimport f\n",
            ),
            ("part", "errors\nbogus\n"),
        ];
        let problems = problems(text, &files);
        assert!(
            problems
                .first()
                .is_some_and(|problem| problem.starts_with(expected)),
            "{text:?}: {problems:?}, not {expected}"
        );
    }
    // The same zone on addresses of their own is no overlap.
    let text = ".:53 {\n whoami\n bind 10.0.0.1\n}\n.:53 {\n whoami\n bind 10.0.0.2\n}\n";
    assert!(problems(text, &[]).is_empty());
}
