-- Say something for a while, by the server's own clock, and forget what is over.
--
-- KEYS  fleet (name -> milliseconds at which it ends), said (name -> milliseconds it lasts, and the value)
-- ARGV  name, milliseconds (0 = forget it now), value
-- Reply how many there are

local fleet, said = KEYS[1], KEYS[2]
local name, lasts, value = ARGV[1], tonumber(ARGV[2]), ARGV[3]

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, over in ipairs(redis.call('ZRANGEBYSCORE', fleet, '-inf', now)) do
    redis.call('ZREM', fleet, over)
    redis.call('HDEL', said, over)
end
if lasts > 0 then
    redis.call('ZADD', fleet, now + lasts, name)
    redis.call('HSET', said, name, ARGV[2] .. '|' .. value)
else
    redis.call('ZREM', fleet, name)
    redis.call('HDEL', said, name)
end
return redis.call('ZCARD', fleet)
