//! Commands of the program as an operator runs them: exit codes, what is printed, what is written.

use std::{fs, path::Path, process::Output};

use mock_provider::Script;
use serde_json::{Value, json};
use tests::{ADMIN_KEY, Books, Gateway, PROMPT_TOKENS, chat, tollway, usage};

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8(both).unwrap()
}

/// Moonshot as a file of the operator's has it, a table that says otherwise, and own prices.
fn prices(folder: &Path) -> impl Fn(&[&str]) -> (bool, String) {
    let model = |id: &str| {
        format!(
            "[[models]]\nid = \"{id}\"\ncontext_window = 9\nprice = {{ prompt = \"1\", completion = \"2\", search = \"0.5\" }}\n"
        )
    };
    let providers = folder.join("providers");
    fs::create_dir(&providers).unwrap();
    let file = format!(
        "name = \"moonshot\"\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:9\"\n{}{}",
        model("a"),
        ["b", "long", "night"].map(model).concat()
    );
    fs::write(providers.join("moonshot.toml"), file).unwrap();
    let table = r#"{
        "moonshot/a":{"litellm_provider":"moonshot","mode":"chat","max_input_tokens":9,
            "input_cost_per_token":1.5e-06,"output_cost_per_token":2e-06,"cache_read_input_token_cost":1e-07},
        "moonshot/b":{"litellm_provider":"moonshot","mode":"chat","max_input_tokens":9,
            "input_cost_per_token":1e-06,"output_cost_per_token":2e-06,"input_cost_per_sigh":3},
        "moonshot/night":{"litellm_provider":"moonshot","mode":"chat","max_input_tokens":9,
            "input_cost_per_token":1e-06,"output_cost_per_token":2e-06,
            "off_peak_pricing":{"output_cost_per_token":1e-06,"weekday_timezone":"Asia/Shanghai",
                "windows":[{"hours_utc":"16:30-00:30","weekdays":[5]}]}},
        "moonshot/long":{"litellm_provider":"moonshot","mode":"chat","max_input_tokens":9,
            "input_cost_per_token":1e-06,"output_cost_per_token":2e-06,
            "input_cost_per_token_above_128k_tokens":5e-07,"output_cost_per_token_above_128k_tokens":2e-06}}"#;
    fs::write(folder.join("table.json"), table).unwrap();
    let own = "# By hand.\n[[markups]]\nfactor = \"1.1\"\n";
    fs::write(folder.join("own.toml"), own).unwrap();
    let folder = folder.to_owned();
    move |arguments| {
        let output = tollway()
            .current_dir(&folder)
            .env("TOLLWAY_PROVIDERS", "providers")
            .env("TOLLWAY_PRICES", "own.toml")
            .args(arguments)
            .output()
            .unwrap();
        (output.status.success(), text(&output))
    }
}

#[test]
fn prices_are_shown_before_they_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let run = prices(folder.path());
    let own = || fs::read_to_string(folder.path().join("own.toml")).unwrap();
    let before = own();
    let update = [
        "prices",
        "update",
        "--from",
        "table.json",
        "--provider",
        "moonshot",
    ];
    let (well, shown) = run(&update);
    assert!(well, "{shown}");
    for line in [
        "moonshot/a      standard  -                              -       cached_prompt  -    0.1",
        "moonshot/a      standard  -                              -       prompt         1    1.5",
        "moonshot/night  standard  00:30-08:30 fri Asia/Shanghai  -       completion     -    1",
        "moonshot/b: stays as it is: unknown unit (input_cost_per_sigh)",
        "moonshot/long: look at the provider's own prices: by the table prompt of standard falls from 1 to 0.5 for prompts of more than 128000 tokens",
        "3 models change",
        "--yes writes it",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    assert_eq!(own(), before);
    let (well, shown) = run(&[&update[..], &["--yes", "--valid-from", "2026-01-31"]].concat());
    assert!(well && shown.contains("written into own.toml"), "{shown}");
    let written = own();
    assert!(written.starts_with(before.trim_end()), "{written}");
    assert!(written.contains("valid_from = \"2026-01-31\""), "{written}");
    // The table says nothing of searches: they do not become free.
    assert!(written.contains("search = \"0.5\""), "{written}");
    assert!(
        written.contains(
            r#"from = "00:30", to = "08:30", time_zone = "Asia/Shanghai", days = ["fri"]"#
        ),
        "{written}"
    );
    // What was written holds now, and is sound.
    let (well, shown) = run(&[&update[..], &["--json"]].concat());
    let value: Value = serde_json::from_str(&shown).unwrap();
    assert!(
        well && value["changes"] == json!([]) && value["same"] == 3,
        "{shown}"
    );
    let (well, shown) = run(&["check-config"]);
    assert!(well, "{shown}");
    // No file to write into, no table, no such provider.
    let output = tollway()
        .current_dir(folder.path())
        .env("TOLLWAY_PROVIDERS", "providers")
        .args(update)
        .args(["--yes"])
        .output()
        .unwrap();
    assert!(!output.status.success() && text(&output).contains("TOLLWAY_PRICES"));
    for wrong in [
        &["prices", "update", "--from", "own.toml"][..],
        &["prices", "update", "--from", "nowhere.json"],
        &[
            "prices",
            "update",
            "--from",
            "table.json",
            "--provider",
            "acme",
        ],
        &[
            "prices",
            "update",
            "--from",
            "table.json",
            "--valid-from",
            "soon",
        ],
    ] {
        let (well, shown) = run(wrong);
        assert!(!well, "{wrong:?}: {shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_providers_export_is_laid_beside_the_charges() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("1").await;
    let script = Script::new().tokens(5).finish("stop");
    let script = script.usage_json(&usage(PROMPT_TOKENS, 5)).done();
    gateway.provider.script("m", script);
    for _ in 0..2 {
        let answer = gateway
            .chat(&customer, chat("m", json!({"max_tokens": 9})))
            .await;
        let _ = answer.expect(200);
    }
    let charges = gateway.charges(&customer, 2).await;
    let day = charges[0]["created_at"].as_str().unwrap()[..10].to_owned();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("usage.csv");
    let url = format!("http://{}", gateway.addr());
    let run = |prompt: u64, more: &[&str]| {
        let csv = format!(
            "start_time_iso,model,input_tokens,output_tokens,input_cached_tokens\n{day}T00:00:00+00:00,M-2026-01-01,{prompt},10,0\n"
        );
        fs::write(&file, csv).unwrap();
        let output = tollway()
            .args(["reconcile", "--provider", "mock", "--file"])
            .arg(&file)
            .args(["--url", &url, "--admin-key", ADMIN_KEY])
            .args(more)
            .output()
            .unwrap();
        (output.status.code(), text(&output))
    };
    let truth = 2 * PROMPT_TOKENS;
    // It waits for an answer of the gateway in this process.
    let check = tokio::task::block_in_place(|| {
        [
            run(truth, &[]),
            run(truth + 1, &["--json"]),
            run(truth + 1, &["--tolerance", "50"]),
            run(truth, &["--from", "2020-01-01", "--to", "2020-01-02"]),
        ]
    });
    assert_eq!(check[0].0, Some(0), "{}", check[0].1);
    assert!(check[0].1.contains("3 figures of mock"), "{}", check[0].1);
    assert_eq!(check[1].0, Some(1), "{}", check[1].1);
    let found: Value = serde_json::from_str(&check[1].1).unwrap();
    let expected = json!([{"day": day, "model": "m", "measure": "prompt",
        "provider": (truth + 1).to_string(), "here": truth.to_string()}]);
    assert_eq!(found["differences"], expected);
    assert_eq!(check[2].0, Some(0), "{}", check[2].1);
    assert_eq!(check[3].0, Some(1), "{}", check[3].1);
    assert!(
        check[3].1.contains("no figures of these days"),
        "{}",
        check[3].1
    );
    gateway.finish().await;
}
