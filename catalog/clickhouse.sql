-- TokenOps in ClickHouse: the sightings as they arrive, and views that join and sum them.
--
-- `tok-ship TARGET --setup` runs everything above the line "== queries ==" (creating what is missing, and the views anew). Works
-- from 18.16 on. A row is a sighting: it may arrive any number of times, and a turn may be sighted from several machines.
-- The views make one turn of them, as `tok-rollup` does: the earliest time, the usage block of the greatest
-- usage_rank, the attribution block of the greatest attribution_rank, the price of the greatest (usage_rank, price_rank).
-- priced_usd is the exact amount that tok-cost counts for the record; if there is none, unpriced says why.
-- The columns are those of lib/ship_rows.py; a test compares the two.

CREATE TABLE IF NOT EXISTS tokenops_events (
    kind String, id String, ts String, alias String, machine String, user String, source String, client String,
    project String, project_id String, account String, agent_id String, workflow_id String, session_id String,
    sidechain UInt8, subagent String, skill String, plugin String, mcp_server String, mcp_tool String, effort String,
    branch String, provider String, provider_inferred UInt8, model String, request_model String,
    turns UInt64, errors UInt64, input_tokens UInt64, cache_read_tokens UInt64, cache_write_tokens UInt64,
    cache_write_1h_tokens UInt64, cache_write_12h_tokens UInt64, output_tokens UInt64, reasoning_tokens UInt64,
    audio_input_tokens UInt64, audio_output_tokens UInt64, image_input_tokens UInt64,
    image_output_tokens UInt64, citation_tokens UInt64, web_searches UInt64, requests UInt64,
    search_context String, tier String, geo String, usage String, usage_reason String, covers String,
    cost_usd Decimal(38, 18), cost_source String, priced_usd Decimal(38, 18), priced_from String,
    unpriced String, catalogue String, status String, error String, latency_ms UInt64, ttft_ms UInt64,
    window String, used Nullable(Float64), resets_at String, rest String, usage_rank String, attribution_rank String,
    price_rank String,
    arrived DateTime DEFAULT now(),
    day Date MATERIALIZED toDate(substring(ts, 1, 10))
) ENGINE = MergeTree PARTITION BY toYYYYMM(arrived) ORDER BY (day, id);

-- Columns that a table of an earlier version lacks. If they are there, --setup goes on.
ALTER TABLE tokenops_events ADD COLUMN subagent String AFTER sidechain;
ALTER TABLE tokenops_events ADD COLUMN skill String AFTER subagent;
ALTER TABLE tokenops_events ADD COLUMN plugin String AFTER skill;
ALTER TABLE tokenops_events ADD COLUMN mcp_server String AFTER plugin;
ALTER TABLE tokenops_events ADD COLUMN mcp_tool String AFTER mcp_server;
ALTER TABLE tokenops_events ADD COLUMN effort String AFTER mcp_tool;
ALTER TABLE tokenops_events ADD COLUMN branch String AFTER effort;

-- Views hold no data and are created anew.
DROP TABLE IF EXISTS tokenops_counted;
DROP TABLE IF EXISTS tokenops_joined;

-- Each record once. A row of kind `same` removes an id, because its turn is counted under `alias`.
CREATE VIEW IF NOT EXISTS tokenops_joined AS
SELECT
    id, kind, first AS ts, toDate(substring(first, 1, 10)) AS day, a.1 AS machine, a.2 AS user, a.3 AS source,
    a.4 AS client, a.5 AS project, a.6 AS project_id, a.7 AS account, a.8 AS agent_id, a.9 AS workflow_id,
    a.10 AS session_id, a.11 AS sidechain, u.1 AS provider, u.2 AS provider_inferred, u.3 AS model,
    u.4 AS request_model, u.5 AS turns, u.6 AS errors, u.7 AS input_tokens, u.8 AS cache_read_tokens,
    u.9 AS cache_write_tokens, u.10 AS cache_write_1h_tokens, u.11 AS cache_write_12h_tokens,
    u.12 AS output_tokens, u.13 AS reasoning_tokens, u.14 AS audio_input_tokens, u.15 AS audio_output_tokens,
    u.16 AS image_input_tokens, u.17 AS image_output_tokens, u.18 AS citation_tokens, u.19 AS web_searches,
    u.20 AS requests, u.21 AS search_context, u.22 AS tier, u.23 AS geo, u.24 AS usage, u.25 AS usage_reason,
    u.26 AS covers, u.27 AS cost_usd, u.28 AS cost_source, u.29 AS window, u.30 AS used, u.31 AS resets_at,
    u.32 AS rest, p.1 AS priced_usd, p.2 AS priced_from, p.3 AS unpriced, p.4 AS catalogue, alias_ AS alias,
    subagent_ AS subagent, skill_ AS skill, plugin_ AS plugin, mcp_server_ AS mcp_server, mcp_tool_ AS mcp_tool,
    effort_ AS effort, branch_ AS branch, status_ AS status, error_ AS error, latency_ms_ AS latency_ms, ttft_ms_ AS ttft_ms
FROM (
    SELECT id, kind,
        min(ts) AS first,
        argMax(tuple(
            machine, user, source, client, project, project_id, account, agent_id, workflow_id, session_id,
            sidechain),
            tuple(attribution_rank, machine, user)) AS a,
        argMax(tuple(
            provider, provider_inferred, model, request_model, turns, errors, input_tokens, cache_read_tokens,
            cache_write_tokens, cache_write_1h_tokens, cache_write_12h_tokens, output_tokens, reasoning_tokens,
            audio_input_tokens, audio_output_tokens, image_input_tokens, image_output_tokens, citation_tokens,
            web_searches, requests, search_context, tier, geo, usage, usage_reason, covers, cost_usd,
            cost_source, window, used, resets_at, rest),
            usage_rank) AS u,
        argMax(tuple(priced_usd, priced_from, unpriced, catalogue), tuple(usage_rank, price_rank)) AS p,
        -- Tags come from the newest revision of a reader, with which attribution_rank begins.
        argMax(subagent, tuple(substring(attribution_rank, 1, 1), subagent)) AS subagent_,
        argMax(skill, tuple(substring(attribution_rank, 1, 1), skill)) AS skill_,
        argMax(plugin, tuple(substring(attribution_rank, 1, 1), plugin)) AS plugin_,
        argMax(mcp_server, tuple(substring(attribution_rank, 1, 1), mcp_server)) AS mcp_server_,
        argMax(mcp_tool, tuple(substring(attribution_rank, 1, 1), mcp_tool)) AS mcp_tool_,
        argMax(branch, tuple(substring(attribution_rank, 1, 1), branch)) AS branch_, max(effort) AS effort_,
        max(alias) AS alias_, max(status) AS status_, max(error) AS error_,
        argMax(latency_ms, toString(latency_ms)) AS latency_ms_, argMax(ttft_ms, toString(ttft_ms)) AS ttft_ms_
    FROM tokenops_events
    WHERE kind != 'same' AND id NOT IN (SELECT id FROM tokenops_events WHERE kind = 'same')
    GROUP BY id, kind
);

-- What counts: turns, and the session totals of sources that tell no turns (of each session those of one source).
CREATE VIEW IF NOT EXISTS tokenops_counted AS
SELECT * FROM tokenops_joined
WHERE kind = 'turn' OR (kind = 'usage' AND covers = 'session'
    AND session_id NOT IN (
        SELECT argMax(session_id, tuple(attribution_rank, machine, user)) FROM tokenops_events
        WHERE kind = 'turn' AND id NOT IN (SELECT id FROM tokenops_events WHERE kind = 'same') GROUP BY id)
    AND (if(session_id = '', id, session_id), source) IN (
        SELECT session, argMin(origin, tuple(-toInt64(total), origin)) FROM (
            SELECT if(a.1 = '', id, a.1) AS session, a.2 AS origin, sum(u.2) AS total FROM (
                SELECT id, argMax(tuple(session_id, source), tuple(attribution_rank, machine, user)) AS a,
                    argMax(tuple(covers, input_tokens + cache_read_tokens + cache_write_tokens +
                        cache_write_1h_tokens + cache_write_12h_tokens + output_tokens), usage_rank) AS u
                FROM tokenops_events WHERE kind = 'usage' GROUP BY id)
            WHERE u.1 = 'session' GROUP BY session, origin)
        GROUP BY session));

-- Rolled up by day, machine, user, project and model. Filled by the query `rollup` below, as often as wanted; the last
-- computation of a day counts, so running it twice does no harm.
CREATE TABLE IF NOT EXISTS tokenops_days (
    day Date, computed DateTime, machine String, user String, client String, project String, provider String,
    model String, unpriced String,
    turns UInt64, errors UInt64, input_tokens UInt64, cache_read_tokens UInt64, cache_write_tokens UInt64,
    cache_write_1h_tokens UInt64, cache_write_12h_tokens UInt64, output_tokens UInt64,
    priced_usd Decimal(38, 18)
) ENGINE = MergeTree PARTITION BY toYYYYMM(day) ORDER BY (day, computed);

CREATE VIEW IF NOT EXISTS tokenops_daily AS
SELECT day, machine, user, client, project, provider, model, unpriced,
    max(turns_) AS turns, max(errors_) AS errors,
    max(input_tokens_) AS input_tokens, max(cache_read_tokens_) AS cache_read_tokens,
    max(cache_write_tokens_) AS cache_write_tokens, max(cache_write_1h_tokens_) AS cache_write_1h_tokens,
    max(cache_write_12h_tokens_) AS cache_write_12h_tokens, max(output_tokens_) AS output_tokens,
    max(priced_usd_) AS priced_usd
FROM (
    SELECT day, computed, machine, user, client, project, provider, model, unpriced, turns AS turns_, errors AS errors_,
        input_tokens AS input_tokens_, cache_read_tokens AS cache_read_tokens_, cache_write_tokens AS cache_write_tokens_,
        cache_write_1h_tokens AS cache_write_1h_tokens_, cache_write_12h_tokens AS cache_write_12h_tokens_,
        output_tokens AS output_tokens_, priced_usd AS priced_usd_
    FROM tokenops_days
)
WHERE (day, computed) IN (SELECT day, max(computed) FROM tokenops_days GROUP BY day)
GROUP BY day, machine, user, client, project, provider, model, unpriced;

-- == queries ==
-- Not run by --setup. Each is tested; {since} and {until} are dates.

-- query: spend
-- What tok-rollup --by month,model --tz UTC | tok-cost says, over all machines.
SELECT substring(ts, 1, 7) AS month, model, sum(turns) AS counted, sum(input_tokens) AS input,
    sum(cache_read_tokens) AS cache_read,
    sum(cache_write_tokens + cache_write_1h_tokens + cache_write_12h_tokens) AS cache_write, sum(output_tokens) AS output,
    sum(priced_usd) AS usd, max(unpriced) AS without
FROM tokenops_counted GROUP BY month, model ORDER BY month, model;

-- query: people
-- Who spent most in a span. The sightings are narrowed before they are joined, by a day more on either side.
SELECT a.1 AS user, a.2 AS project, sum(counted) AS turns, sum(spent) AS usd FROM (
    SELECT id, min(ts) AS first, argMax(tuple(user, project), tuple(attribution_rank, machine, user)) AS a,
        argMax(turns, usage_rank) AS counted, argMax(priced_usd, tuple(usage_rank, price_rank)) AS spent
    FROM tokenops_events
    WHERE kind = 'turn' AND day >= toDate('{since}') - 1 AND day <= toDate('{until}') + 1
        AND id NOT IN (SELECT id FROM tokenops_events WHERE kind = 'same')
    GROUP BY id)
WHERE first >= '{since}' AND first < '{until}T99' GROUP BY user, project ORDER BY usd DESC, user, project LIMIT 20;

-- query: rollup
-- The days of a span into tokenops_days. By cron, for the last days: yesterday's sightings may still come.
INSERT INTO tokenops_days
SELECT day, now(), machine, user, client, project, provider, model, unpriced,
    sum(turns), sum(errors), sum(input_tokens), sum(cache_read_tokens), sum(cache_write_tokens),
    sum(cache_write_1h_tokens), sum(cache_write_12h_tokens), sum(output_tokens),
    sum(priced_usd)
FROM tokenops_counted WHERE day >= toDate('{since}') AND day <= toDate('{until}')
GROUP BY day, machine, user, client, project, provider, model, unpriced;

-- query: limits
-- The last reading of each limit of each machine.
SELECT machine, provider, window, argMax(used, ts) AS share, argMax(resets_at, ts) AS resets, max(ts) AS seen
FROM tokenops_joined WHERE kind = 'meter' GROUP BY machine, provider, window ORDER BY share DESC;

