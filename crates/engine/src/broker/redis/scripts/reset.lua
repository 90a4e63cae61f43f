-- Begins a new epoch, and tells all hosts that want the topic.
-- ARGV: 7 the epoch whose offsets were seen to go back: nothing happens if another host has begun a new one. Or nothing,
--       because messages have no place in the order: then those that are kept stay, with their offsets

local epoch = redis.call('HGET', KEYS[1], 'epoch')
if ARGV[7] ~= '' and epoch ~= ARGV[7] then
    return 0
end
if ARGV[7] ~= '' then
    begin(current_run())
    keep_position()
elseif epoch then
    -- The first write is one that is allowed when there is no memory left.
    keep_position()
    redis.call('HSET', KEYS[1], 'epoch', ARGV[1])
end
redis.call('PUBLISH', ARGV[5], ARGV[6] .. '\8')
return 1
