-- Commit a batch of operations to a config store, all or nothing.
--
-- KEYS  meta docs idx log req
-- ARGV  channel, log length, format, epoch for a store that is empty, epoch to insist on ('' = any),
--       then per operation: tenant, state, revision to insist on ('' = any), digest, body
-- Reply {'OK', revision} | {'EPOCH', actual} | {'CONFLICT', operation, actual} | {'DAMAGED', why}
--
-- Redis has no rollback, so whatever can fail does so before the first XADD. Reading the
-- five keys with commands of their type is what checks their types.

local meta, docs, idx, log, req = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local channel, log_length, format, new_epoch, expected_epoch = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local FIRST, WIDTH = 6, 5

local function text(number)
    return string.format('%.0f', number) -- tostring() turns 1e15 and more into an exponent
end

local done = redis.call('GET', req)
if done then
    return {'OK', done}
end

local head = redis.call('HMGET', meta, 'epoch', 'rev', 'chain')
local epoch, rev, chain = head[1], tonumber(head[2] or ''), head[3]
if expected_epoch ~= '' and expected_epoch ~= epoch then
    return {'EPOCH', epoch or ''}
end
local bodies, entries = redis.call('HLEN', docs), redis.call('HLEN', idx)
local log_end
if redis.call('EXISTS', log) == 1 then
    local info = redis.call('XINFO', 'STREAM', log)
    for i = 1, #info, 2 do
        log_end = info[i] == 'last-generated-id' and info[i + 1] or log_end
    end
end
if not epoch then
    if bodies + entries > 0 or log_end then
        return {'DAMAGED', 'it has records but no revision'}
    end
    epoch, rev, chain = new_epoch, 0, new_epoch
elseif not rev or not chain then
    return {'DAMAGED', 'its revision is unreadable'}
elseif rev > 0 and entries == 0 then
    return {'DAMAGED', 'it has a revision but no records'}
elseif log_end and log_end ~= text(rev) .. '-0' then
    return {'DAMAGED', 'its log ends at ' .. log_end .. ' and not at revision ' .. text(rev)}
end

-- An incarnation is the revision at which a tenant was created; a deletion ends it, and keeps its name.
local now, lives, incarnations = {}, {}, {}
for i = FIRST, #ARGV, WIDTH do
    local tenant, state, expected = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
    local at = rev + (i - FIRST) / WIDTH + 1
    if not now[tenant] then
        local entry = redis.call('HGET', idx, tenant) or ''
        local found, was, since = string.match(entry, '^(%d+):(%u):%x*:%d+:(%d+)')
        found, was = string.match(entry, '^(%d+):(%u)')
        now[tenant] = was ~= 'X' and tonumber(found) or 0
        lives[tenant] = since
    end
    if expected and now[tenant] ~= expected then
        return {'CONFLICT', (i - FIRST) / WIDTH, now[tenant]}
    end
    if not lives[tenant] or (now[tenant] == 0 and state ~= 'X') then
        lives[tenant] = text(at)
    end
    incarnations[i] = lives[tenant]
    now[tenant] = state == 'X' and 0 or at
end
local time = redis.call('TIME')
local milliseconds = text(time[1] * 1000 + math.floor(time[2] / 1000))

-- Published ahead of the writes because a user without the right to the channel is refused
-- here; nobody can read between this line and the end of the script. A single tenant is named:
-- who holds it reads the log and the record in one conversation.
local count = (#ARGV - FIRST + 1) / WIDTH
redis.call('PUBLISH', channel, text(rev + count) .. (count == 1 and ' ' .. ARGV[FIRST] or ''))
for i = FIRST, #ARGV, WIDTH do
    local tenant, state, digest, body = ARGV[i], ARGV[i + 1], ARGV[i + 3], ARGV[i + 4]
    rev = rev + 1
    local at = text(rev)
    chain = redis.sha1hex(table.concat({chain, at, tenant, state, digest}, '|'))
    local entry = table.concat({at, state, digest, milliseconds, incarnations[i]}, ':')
    redis.call('XADD', log, 'MAXLEN', '~', log_length, at .. '-0', 't', tenant, 'e', entry, 'c', chain)
    redis.call('HSET', idx, tenant, entry)
    if state == 'X' then
        redis.call('HDEL', docs, tenant)
    else
        redis.call('HSET', docs, tenant, entry .. '|' .. body)
    end
end
redis.call('HSET', meta, 'epoch', epoch, 'rev', text(rev), 'chain', chain, 'format', format)
redis.call('SET', req, text(rev), 'EX', 3600)
return {'OK', text(rev)}
