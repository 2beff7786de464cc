"""The table of the Elasticsearch APIs and parameters that a tenant may use; ``routes.py`` reads it.

A line holds methods, a path, how its body is confined (see ``request_bodies.py``) and how the
answer is rewritten (see ``response_bodies.py``). In a path, ``{index}`` and ``{name}`` are names of the
tenant's; ``{scroll}``, ``{async}``, ``{eql}`` and ``{task}`` are signed ids; ``{free}`` is
anything. ``[{index}/]`` and ``[/{index}]`` may be left out and then are all that the tenant
has. Where one path is matched by two lines, the first counts.
"""

ROUTES = """
GET,HEAD        /                                     none      raw
GET,POST        /_search/scroll                       scroll    hits
DELETE          /_search/scroll                       scrolls   raw
GET,POST        /_search/scroll/{scroll}              none      hits
DELETE          /_search/scroll/{scroll}              none      raw
POST            /{index}/_pit                         query     pit
DELETE          /_pit                                 pit       raw
GET,POST        /[{index}/]_search                    search    hits
GET,POST        /[{index}/]_count                     query     hits
GET,POST        /[{index}/]_search_shards             query     names
GET,POST        /[{index}/]_field_caps                query     hits
GET,POST        /[{index}/]_rank_eval                 rank      hits
GET,POST        /[{index}/]_validate/query            query     hits
GET,POST        /{index}/_explain/{free}              query     hits
GET,POST        /{index}/_terms_enum                  query     hits
GET,POST        /{index}/_knn_search                  query     hits
GET,POST        /{index}/_mvt/{free}/{free}/{free}/{free}  query  raw
GET,POST        /{index}/_termvectors[/{free}]        query     hits
GET,POST        /_mtermvectors                        query     hits
GET,POST        /{index}/_mtermvectors                query     hits
GET,POST        /_msearch                             msearch   hits
GET,POST        /{index}/_msearch                     msearch_in hits
GET,POST        /_mget                                query     hits
GET,POST        /{index}/_mget                        query     hits
POST            /[{index}/]_async_search              search    async
GET             /_async_search/{async}                none      async
DELETE          /_async_search/{async}                none      raw
GET             /_async_search/status/{async}         none      async
GET,POST        /{index}/_eql/search                  query     eql
GET             /_eql/search/{eql}                    none      eql
DELETE          /_eql/search/{eql}                    none      raw
GET             /_eql/search/status/{eql}             none      eql
GET,HEAD,DELETE /{index}/_doc/{free}                  none      hits
PUT,POST        /{index}/_doc/{free}                  document  hits
POST            /{index}/_doc                         document  hits
PUT,POST        /{index}/_create/{free}               document  hits
POST            /{index}/_update/{free}               document  hits
GET,HEAD        /{index}/_source/{free}               none      raw
PUT,POST        /_bulk                                bulk      hits
PUT,POST        /{index}/_bulk                        bulk      hits
POST            /{index}/_delete_by_query             query     task
POST            /{index}/_update_by_query             query     task
POST            /_reindex                             reindex   task
POST            /_delete_by_query/{task}/_rethrottle  none      raw
POST            /_update_by_query/{task}/_rethrottle  none      raw
POST            /_reindex/{task}/_rethrottle          none      raw
GET             /_tasks/{task}                        none      raw
POST            /_tasks/{task}/_cancel                none      raw
GET             /_cluster/health[/{index}]            none      names
GET             /_resolve/index/{index}               none      names
GET,POST        /_analyze                             query     raw
GET,POST        /{index}/_analyze                     query     raw
POST            /_aliases                             aliases   raw
GET             /[{index}/]_alias                     none      names
GET,HEAD        /[{index}/]_alias/{name}              none      names
PUT,POST        /{index}/_alias/{name}                alias     raw
DELETE          /{index}/_alias/{name}                none      raw
GET             /[{index}/]_mapping                   none      names
GET             /[{index}/]_mapping/field/{free}      none      keys
PUT,POST        /{index}/_mapping                     mapping   raw
GET             /[{index}/]_settings                  none      names
GET             /[{index}/]_settings/{free}           none      names
PUT             /[{index}/]_settings                  settings  raw
GET             /[{index}/]_stats                     none      names
GET             /[{index}/]_stats/{free}              none      names
GET             /[{index}/]_segments                  none      names
GET             /[{index}/]_recovery                  none      names
GET             /[{index}/]_shard_stores              none      names
GET,POST        /[{index}/]_refresh                   none      names
GET,POST        /[{index}/]_flush                     none      names
POST            /[{index}/]_forcemerge                none      task
POST            /[{index}/]_cache/clear               none      names
PUT             /{index}/_block/{free}                none      names
POST            /{index}/_open                        none      task
POST            /{index}/_close                       none      names
POST            /{index}/_disk_usage                  none      names
GET             /{index}/_field_usage_stats           none      names
GET,POST        /{index}/_reload_search_analyzers     none      names
GET             /{index}/_ilm/explain                 none      names
GET             /{index}/_lifecycle/explain           none      names
PUT,POST        /{index}/_clone/{name}                create    names
PUT,POST        /{index}/_shrink/{name}               create    names
PUT,POST        /{index}/_split/{name}                create    names
POST            /{index}/_rollover                    create    names
POST            /{index}/_rollover/{name}             create    names
POST            /{index}/_downsample/{name}           query     names
GET,HEAD        /_index_template[/{name}]             none      names
PUT,POST        /_index_template/{name}               template  raw
DELETE          /_index_template/{name}               none      raw
GET,HEAD        /_component_template[/{name}]         none      names
PUT,POST        /_component_template/{name}           template  raw
DELETE          /_component_template/{name}           none      raw
GET,HEAD        /_template[/{name}]                   none      names
PUT,POST        /_template/{name}                     template  raw
DELETE          /_template/{name}                     none      raw
GET             /_data_stream[/{name}]                none      names
PUT             /_data_stream/{name}                  none      raw
DELETE          /_data_stream/{name}                  none      raw
GET             /_data_stream[/{name}]/_stats         none      names
POST            /_data_stream/_modify                 modify    raw
POST            /_data_stream/_migrate/{name}         none      raw
GET             /_data_stream/{name}/_lifecycle       none      names
PUT             /_data_stream/{name}/_lifecycle       query     raw
DELETE          /_data_stream/{name}/_lifecycle       none      raw
GET             /_cat/aliases[/{name}]                none      rows
GET             /_cat/component_templates[/{name}]    none      rows
GET             /_cat/count[/{index}]                 none      rows
GET             /_cat/indices[/{index}]               none      rows
GET             /_cat/recovery[/{index}]              none      rows
GET             /_cat/segments[/{index}]              none      rows
GET             /_cat/shards[/{index}]                none      rows
GET             /_cat/templates[/{name}]              none      rows
PUT             /{index}                              create    names
GET,HEAD        /{index}                              none      names
DELETE          /{index}                              none      raw
"""

# Parameters that carry no name, of all lines together. Elasticsearch takes "index", "name" and the like from the
# query where a path has none, and a whole body as "source": those are not here, and so refused.
PARAMETERS = """
_source _source_excludes _source_includes active_only all_shards allow_closed allow_no_indices
allow_partial_search_results analyze_wildcard analyzer batched_reduce_size bytes cause ccs_minimize_roundtrips
completion_fields conflicts create default_operator detailed df dry_run error_trace exact_bounds expand_wildcards
explain extent features field_statistics fielddata fielddata_fields fields filter_path filters flat_settings flush
forbid_closed_indices force force_synthetic_source format from full_id grid_agg grid_precision grid_type groups h
health help human if_primary_term if_seq_no ignore_throttled ignore_unavailable include_defaults
include_empty_fields include_named_queries_score include_segment_file_sizes include_source_on_error
include_unloaded_segments include_unmapped keep_alive keep_on_completion lang lazy lenient level
list_executed_pipelines local master_timeout max_concurrent_searches max_concurrent_shard_requests max_docs
max_num_segments min_compatible_shard_node min_score mode offsets only_errors only_expunge_deletes only_managed
op_type payloads pipeline positions pre_filter_shard_size preference preserve_existing pretty pri q query realtime
refresh reopen request request_cache requests_per_second require_alias require_data_stream resource
rest_total_hits_as_int retry_on_conflict rewrite routing run_expensive_tasks s scroll scroll_size search_timeout
search_type settings_filter size slices sort stats status stored_fields suggest_field suggest_mode suggest_size
suggest_text term_statistics terminate_after time timeout track_scores track_total_hits ts typed_keys types v
verbose version version_type wait_for_active_shards wait_for_completion wait_for_completion_timeout wait_for_events
wait_for_no_initializing_shards wait_for_no_relocating_shards wait_for_nodes wait_for_status wait_for_timeout
wait_if_ongoing with_labels write_index_only
"""
